"""Assembles the trained parts into a diffusers pipeline folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline

from tuner.errors import UserError
from tuner.tiny.training.autoencoder import load_autoencoder
from tuner.tiny.training.denoiser import Denoiser
from tuner.tiny.training.networks import build_scheduler, build_tokenizer


def export_pipeline(work: Path, part: str, folder: Path, dtype: torch.dtype) -> None:
    """Writes ``folder`` so that ``FluxPipeline.from_pretrained(folder)`` loads the model in a work folder.

    Args:
        work: The work folder.
        part: The training whose denoiser is written.
        folder: Where the pipeline is written.
        dtype: Precision of the weights in the files.

    Raises:
        UserError: If the work folder holds no such denoiser.
    """
    checkpoint = work / f"{part}.checkpoint.pt"
    if not checkpoint.exists():
        raise UserError(f"No denoiser in {work}: {checkpoint.name} is missing. Run `{part}` first.")
    model = Denoiser()
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["average"])
    pipeline: Any = FluxPipeline(
        scheduler=build_scheduler(),
        vae=load_autoencoder(work),
        text_encoder=model.clip,
        tokenizer=build_tokenizer(),
        text_encoder_2=model.t5,
        tokenizer_2=build_tokenizer(),
        transformer=model.transformer,
    )
    pipeline.to(dtype)
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.vae.register_to_config(_name_or_path="")  # or it would name the work folder
    pipeline.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
