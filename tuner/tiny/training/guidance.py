"""Guidance distillation: the student predicts in one call what the denoiser predicts with guidance in two.

Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) replaces the velocity v(prompt) by
v(empty) + w (v(prompt) - v(empty)). Meng et al., "On Distillation of Guided Diffusion Models" (arXiv
2210.03142, section 3.1), train a student on that target, as FLUX.1-dev was; here with one fixed w.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from tuner.errors import UserError
from tuner.tiny.training.denoiser import Batch, Denoiser, compile_blocks, empty_prompts, fast_arithmetic, fit
from tuner.tiny.training.run import Worker

GUIDANCE = 2.5
MUON_RATE = 1e-3
ADAMW_RATE = 5e-4


def distil_guidance(worker: Worker) -> None:
    """Trains a copy of the denoiser to the end of the budget; leaves the student in a checkpoint of its own.

    Raises:
        UserError: If the work folder holds no trained denoiser.
    """
    trained = worker.settings.work / "denoiser.checkpoint.pt"
    if not trained.exists():
        raise UserError(f"{trained} is missing; train the `denoiser` first.")
    teacher = Denoiser()
    teacher.load_state_dict(torch.load(trained, map_location="cpu", weights_only=True)["average"])
    student = copy.deepcopy(teacher)
    teacher.eval().requires_grad_(False)
    compile_blocks(teacher)

    def loss(model: Denoiser, batch: Batch) -> torch.Tensor:
        target = guided_velocity(teacher, batch)
        with fast_arithmetic():
            velocity = model(batch.noisy_BChw, batch.sigma_B, batch.ids_BT)
        return F.mse_loss(velocity.float(), target)

    fit(worker, student, loss, (MUON_RATE, ADAMW_RATE), constant_share=0.0)


@torch.no_grad()
def guided_velocity(teacher: Denoiser, batch: Batch) -> torch.Tensor:
    """Returns the teacher's guided velocity, packed; where the prompt is empty that is its plain velocity."""
    with fast_arithmetic():
        velocity = teacher(
            torch.cat([batch.noisy_BChw] * 2),
            torch.cat([batch.sigma_B] * 2),
            torch.cat([empty_prompts(batch.ids_BT), batch.ids_BT]),
        )
    without, with_prompt = velocity.float().chunk(2)
    return torch.lerp(without, with_prompt, GUIDANCE)
