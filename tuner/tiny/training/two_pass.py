"""A denoiser for guidance in two passes, trained from the shipped one, whose guidance is distilled.

The shipped denoiser predicts a guided velocity. Training it on the plain velocity again, with more empty captions,
gives back the two predictions that classifier-free guidance (Ho & Salimans, arXiv 2207.12598) combines.
"""

from __future__ import annotations

from typing import Any

from tuner.tiny import PIPELINE_FOLDER
from tuner.tiny.training.denoiser import Denoiser, fit, velocity_loss
from tuner.tiny.training.run import Worker

CAPTION_DROPOUT = 0.15
MUON_RATE = 2e-3
ADAMW_RATE = 1e-3
CONSTANT_SHARE = 0.3


def train_two_pass(worker: Worker) -> None:
    """Trains the shipped denoiser to the end of the budget; leaves the averaged weights in a checkpoint."""
    from diffusers import FluxPipeline

    pipe: Any = FluxPipeline.from_pretrained(PIPELINE_FOLDER)
    model = Denoiser()
    model.transformer, model.t5, model.clip = pipe.transformer, pipe.text_encoder_2, pipe.text_encoder
    model.train().requires_grad_(True)
    fit(worker, model, velocity_loss, (MUON_RATE, ADAMW_RATE), CONSTANT_SHARE, CAPTION_DROPOUT)
