"""The autoencoder: 4x4 pixels to one latent pixel of 8 channels, faithful at 64, 48 and 32 pixels alike.

Schedules that change resolution resize latents. A loss on decoded *resized* latents makes that meaningful:
the latent of an image at one size, resized, should decode to the same scene rendered at the other size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from tuner.tiny.checker import accuracy
from tuner.tiny.scenes import random_scene, render
from tuner.tiny.training.data import SIZES, Images, rendered, to_float, to_uint8
from tuner.tiny.training.optim import Training
from tuner.tiny.training.run import Worker, half_precision

Array = npt.NDArray[np.int64]

SCENES = 20_000
BATCH = 24
MUON_RATE = 4e-3
ADAMW_RATE = 2e-3
CROPPED = 0.7  # share of the training that sees 64-pixel scenes through 32-pixel windows, three times cheaper
KL_WEIGHT = 1e-4
RESIZE_WEIGHT = 0.3
EMA = 0.998
REPORT_SCENES = 300


def build_autoencoder() -> Any:
    """Returns the untrained autoencoder, 0.66M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def train_autoencoder(worker: Worker) -> None:
    """Trains to the end of the budget; leaves the averaged weights and latent statistics in the checkpoint."""
    settings = worker.settings
    torch.manual_seed(settings.seed)
    model = build_autoencoder()
    training = Training(model, (MUON_RATE, ADAMW_RATE), ("encoder.conv_in", "decoder.conv_out"), EMA)
    if state := worker.resume():
        training.load_state_dict(state)
    if worker.rank == 0:
        images = rendered(settings.work, "autoencoder", SCENES, SIZES, settings.seed, settings.workers)
    worker.shared(0)  # the others wait for the first worker's files
    images = rendered(settings.work, "autoencoder", SCENES, SIZES, settings.seed, settings.workers)
    rng = np.random.default_rng([settings.seed, worker.rank, worker.step])
    while (progress := worker.progress()) < 1:
        index = np.sort(rng.integers(SCENES, size=BATCH))
        loss, parts = _loss(model, _batch(images, index, rng, progress < CROPPED), rng)
        torch.autograd.backward(loss)
        worker.average_gradients(training.optimisers.parameters)
        worker.step += 1
        training.step(min(1, (worker.step - 1) / 50, 2 * (1 - progress)), worker.step)
        if worker.every(20):
            worker.log(progress=round(progress, 4), **parts)
        worker.save(training.state_dict)
    worker.save(training.state_dict, now=True)
    if worker.rank == 0:
        average: Any = training.average
        normalise(average, images)
        average.save_pretrained(settings.work / "vae")
        worker.log(**autoencoder_report(average, REPORT_SCENES))


def load_autoencoder(work: Path) -> Any:
    """Loads the trained autoencoder of a work folder."""
    return AutoencoderKL.from_pretrained(work / "vae").eval().requires_grad_(False)


@torch.no_grad()
def normalise(model: Any, images: list[Images]) -> None:
    """Gives every latent channel the same variance, and sets the scale and shift that make all of it 1 and 0.

    FLUX normalises latents by one scale and one shift; a channel's own scale is moved into the weights of the
    encoder's last and the decoder's first layer, which changes no reconstruction.
    """

    def latents() -> torch.Tensor:
        parts = [model.encode(to_float(array[:500])).latent_dist.mode() for array in images]
        return torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)

    spread = latents().std(dim=1)
    channels = len(spread)
    model.encoder.conv_out.weight[:channels] /= spread[:, None, None, None]
    model.encoder.conv_out.bias[:channels] /= spread
    model.encoder.conv_out.bias[channels:] -= 2 * spread.log()  # the other half is the log variance
    model.decoder.conv_in.weight *= spread[None, :, None, None]
    values = latents()
    model.register_to_config(scaling_factor=1 / values.std().item(), shift_factor=values.mean().item())


@torch.inference_mode()
def autoencoder_report(model: Any, scenes: int) -> dict[str, float]:
    """PSNR in dB and checker accuracy of reconstructions, per size, on scenes of the ``search`` split."""
    rng = np.random.default_rng(0)
    drawn = [random_scene(rng, "search") for _ in range(scenes)]
    captions = [scene.caption for scene in drawn]
    report = {}
    for size in SIZES:
        pixels = to_float(np.stack([render(scene, size).transpose(2, 0, 1) for scene in drawn]))
        decoded = torch.cat([model(part).sample for part in torch.split(pixels, 50)])
        error = F.mse_loss(decoded.clamp(-1, 1), pixels).item()
        report[f"psnr{size}"] = round(10 * float(np.log10(4 / error)), 2)
        report[f"joint{size}"] = round(accuracy(list(to_uint8(decoded)), captions)["joint"], 4)
    return report


@dataclass(frozen=True)
class _Batch:
    """The same scenes at a large and at the smallest size, and where the large view lies in the small one."""

    large: torch.Tensor
    small: torch.Tensor
    view: tuple[slice, slice]  # rows and columns of the small latent that the large view covers


def _batch(images: list[Images], index: Array, rng: np.random.Generator, cropped: bool) -> _Batch:
    small = to_float(images[2][index])
    if not cropped:
        large = to_float(images[0 if rng.random() < 2 / 3 else 1][index])
        return _Batch(large, small, (slice(None), slice(None)))
    y, x = (int(value) for value in rng.integers(5, size=2))
    window = images[0][index, :, 8 * y : 8 * y + 32, 8 * x : 8 * x + 32]
    return _Batch(to_float(window), small, (slice(y, y + 4), slice(x, x + 4)))


def _loss(model: Any, batch: _Batch, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
    """Reconstruction at 32 pixels, at a larger size, and of one's latents resized to the other."""
    total = torch.zeros(())
    parts: dict[str, float] = {}
    latents = []
    with half_precision():
        for name, target in (("large", batch.large), ("small", batch.small)):
            posterior = model.encode(target).latent_dist
            error = _reconstruction(model.decode(posterior.sample()).sample, target)
            total = total + error + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
            parts[name] = round(error.item(), 5)
            latents.append(posterior.mode().float())
        large, small = latents[0], latents[1][:, :, *batch.view]
        if rng.random() < 0.5:
            source, side, target = small, large.shape[-1], batch.large
        else:
            rows, columns = (
                slice(part.start and 4 * part.start, part.stop and 4 * part.stop) for part in batch.view
            )
            source, side, target = large, small.shape[-1], batch.small[:, :, rows, columns]
        resized = F.interpolate(source, (side, side), mode="bilinear")
        error = _reconstruction(model.decode(resized).sample, target)
        parts["grown" if source is small else "shrunk"] = round(error.item(), 5)
    return total + RESIZE_WEIGHT * error, parts


def _reconstruction(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 distance of pixels and of their differences to the right and lower neighbour."""
    image = image.float()
    down = (image.diff(dim=2) - target.diff(dim=2)).abs().mean()
    right = (image.diff(dim=3) - target.diff(dim=3)).abs().mean()
    return (image - target).abs().mean() + 0.5 * (down + right)
