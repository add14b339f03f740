"""The denoiser: a FLUX transformer and its two text encoders, trained together by rectified flow.

With clean latent x and noise e, the network sees (1 - s) x + s e and predicts e - x (Liu et al., "Flow
Straight and Fast", arXiv 2209.03003). Noise levels are mostly logit-normal (Esser et al., "Scaling Rectified
Flow Transformers", arXiv 2403.03206) and shifted more at larger sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuner.tiny.training.latents import Latents, load_latents
from tuner.tiny.training.networks import build_clip, build_t5, build_transformer
from tuner.tiny.training.optim import Training
from tuner.tiny.training.run import Worker, half_precision

SIZES = {64: (0.48, 96, 3.0), 48: (0.08, 128, 2.4), 32: (0.44, 160, 1.8)}
"""Per image size: share of the steps, images per worker and step, shift of the training noise levels."""
UNIFORM_SHARE = 0.2
CAPTION_DROPOUT = 0.04
MUON_RATE = 4e-3
ADAMW_RATE = 2e-3
WARM_UP_STEPS = 100
CONSTANT_SHARE = 0.4
EMA = 0.995
END_TOKEN = 1
OUTER = ("transformer.x_embedder", "transformer.proj_out", "transformer.time_text_embed")
"""Input and output layers, which AdamW trains."""


class Denoiser(nn.Module):
    """Token ids and noisy latents in, velocity out.

    B images, C channels, h and w latent pixels, T text tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transformer = build_transformer()
        self.t5 = build_t5()
        self.clip = build_clip()

    def forward(self, x_BChw: torch.Tensor, sigma_B: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
        """Returns the velocity of ``x`` at ``sigma``, packed like ``pack``'s result."""
        height, width = x_BChw.shape[2] // 2, x_BChw.shape[3] // 2
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        image_ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()
        velocity: torch.Tensor = self.transformer(
            hidden_states=pack(x_BChw),
            timestep=sigma_B,
            encoder_hidden_states=self.t5(ids_BT)[0],
            pooled_projections=self.clip(ids_BT).pooler_output,
            img_ids=image_ids,
            txt_ids=torch.zeros(ids_BT.shape[1], 3),
            return_dict=False,
        )[0]
        return velocity


def pack(x_BChw: torch.Tensor) -> torch.Tensor:
    """Brings (B, C, h, w) to FLUX's (B, h/2 * w/2, 4C): each token holds a 2x2 patch, channel first."""
    return F.pixel_unshuffle(x_BChw, 2).flatten(2).mT


Loss = Callable[[Denoiser, "Batch"], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """B noisy images of one size: clean and noisy latents (B, C, h, w), noise levels (B,), token ids (B, T)."""

    clean_BChw: torch.Tensor
    noise_BChw: torch.Tensor
    noisy_BChw: torch.Tensor
    sigma_B: torch.Tensor
    ids_BT: torch.Tensor


def train_denoiser(worker: Worker) -> None:
    """Trains to the end of the budget; leaves the averaged weights in the checkpoint."""
    torch.manual_seed(worker.settings.seed)
    fit(worker, Denoiser(), velocity_loss, (MUON_RATE, ADAMW_RATE), CONSTANT_SHARE)


def fit(
    worker: Worker,
    model: Denoiser,
    loss: Loss,
    rates: tuple[float, float],
    constant_share: float,
    caption_dropout: float = CAPTION_DROPOUT,
) -> None:
    """Minimises a loss over the training latents to the end of the budget, resuming where it stopped.

    Args:
        worker: This process, with its clock, log and checkpoint.
        model: Network to train, in place; the checkpoint holds it, its moving average and the optimiser.
        loss: Scalar loss of a batch.
        rates: Peak learning rates of Muon and AdamW.
        constant_share: Share of the budget at the peak rates, before they fall linearly to zero.
        caption_dropout: Share of the captions that are replaced by the empty one.
    """
    settings = worker.settings
    training = Training(model, rates, OUTER, EMA)
    if state := worker.resume():
        training.load_state_dict(state)
    data = load_latents(settings.work)
    compile_blocks(model)
    sizes_rng = np.random.default_rng([settings.seed, worker.step])  # the same size on all workers
    rng = np.random.default_rng([settings.seed, worker.step, worker.rank])
    torch.manual_seed(int(rng.integers(2**62)))
    losses: dict[int, list[float]] = {size: [] for size in SIZES}
    while (progress := worker.progress()) < 1:
        size = int(sizes_rng.choice(list(SIZES), p=[share for share, _, _ in SIZES.values()]))
        value = loss(model, _batch(data, size, rng, caption_dropout))
        torch.autograd.backward(value)
        losses[size].append(value.item())
        worker.average_gradients(training.optimisers.parameters)
        worker.step += 1
        cooling = (1 - progress) / (1 - constant_share)
        training.step(min(1, worker.step / WARM_UP_STEPS, cooling), worker.step)
        if worker.every(30):
            means = {f"loss{size}": round(float(np.mean(part)), 4) for size, part in losses.items() if part}
            worker.log(progress=round(progress, 4), **means)
            losses = {size: [] for size in SIZES}
        worker.save(training.state_dict)
    worker.save(training.state_dict, now=True)


def compile_blocks(model: Denoiser) -> None:
    """Compiles each transformer block, for the few shapes that training uses."""
    for block in (*model.transformer.transformer_blocks, *model.transformer.single_transformer_blocks):
        block.compile(dynamic=False)


def empty_prompts(ids_BT: torch.Tensor) -> torch.Tensor:
    """Returns the token ids of as many empty prompts, (B, T)."""
    empty = torch.zeros_like(ids_BT)
    empty[:, 0] = END_TOKEN
    return empty


def _batch(data: Latents, size: int, rng: np.random.Generator, caption_dropout: float) -> Batch:
    _, batch, shift = SIZES[size]
    index = np.sort(rng.integers(len(data.tokens), size=batch))
    clean = torch.from_numpy(np.asarray(data.latents[size][index])).float()
    ids = torch.from_numpy(data.tokens[index].astype(np.int64))
    dropped = torch.rand(batch) < caption_dropout
    ids = torch.where(dropped[:, None], empty_prompts(ids), ids)
    sigma = torch.where(torch.rand(batch) < UNIFORM_SHARE, torch.rand(batch), torch.randn(batch).sigmoid())
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    noise = torch.randn_like(clean)
    level = sigma[:, None, None, None]
    return Batch(clean, noise, (1 - level) * clean + level * noise, sigma, ids)


def velocity_loss(model: Denoiser, batch: Batch) -> torch.Tensor:
    """Returns the mean squared error of the predicted velocity."""
    with fast_arithmetic():
        velocity = model(batch.noisy_BChw, batch.sigma_B, batch.ids_BT)
    return F.mse_loss(velocity.float(), pack(batch.noise_BChw - batch.clean_BChw))


@contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Half precision, and plain attention: at under a hundred tokens two matrix products beat the fused kernel."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # despite its name it rules the CPU too
    with half_precision(), sdpa_kernel(SDPBackend.MATH):
        yield
