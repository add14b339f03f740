"""The training loss of one stage of the student, wired to the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tuner.distill.swd import losses
from tuner.distill.swd.draws import Draws
from tuner.distill.swd.networks import Head, features, velocity, velocity_and_features
from tuner.distill.swd.settings import Loss, SwdSettings
from tuner.models import Conditioning, FlowModel
from tuner.models._pipeline_model import PipelineModel

DMD_TOP, MMD_TOP = 16 / 28, 10 / 28
"""Highest unshifted noise level that DMD and the patch loss look at (steps 12 and 18 of 28 where published)."""
GENERATOR_WEIGHT, DISCRIMINATOR_WEIGHT = 5e-3, 1e-2
"""Weights of the adversarial terms, as in the published training."""


@dataclass(frozen=True)
class StageBatch:
    """The student's images of one stage, and the real images of the same captions.

    Attributes:
        real: Clean latents at the stage's size, (B, C, h, w).
        generated: The student's, of the same shape; with gradient where the student is trained.
        conditioning: B rows.
        shift: The model's own shift of noise levels at this size.
    """

    real: torch.Tensor
    generated: torch.Tensor
    conditioning: Conditioning
    shift: float


def predict(model: FlowModel, x_BChw: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
    """Predicts the clean latents: one Euler step to 0."""
    return x_BChw - sigma * model.velocity(x_BChw, sigma, conditioning)


def noised(clean_BChw: torch.Tensor, noise_BChw: torch.Tensor, levels_B: torch.Tensor) -> torch.Tensor:
    """Brings every clean latent to its own noise level."""
    levels_B111 = levels_B[:, None, None, None]
    return (1 - levels_B111) * clean_BChw + levels_B111 * noise_BChw


class Objective:
    """The losses of student and critic.

    Args:
        settings: Which losses.
        teacher: The pretrained model, with its guidance.
        critic: The fake score network; only called where the settings ask for one.
        head: The discriminator's head.
    """

    def __init__(self, settings: SwdSettings, teacher: PipelineModel, critic: PipelineModel, head: Head):
        self._settings = settings
        self._teacher = teacher
        self._critic = critic
        self._head = head

    def student(self, batch: StageBatch, draws: Draws) -> dict[Loss, torch.Tensor]:
        """Returns the terms that the student minimises the sum of; their gradients reach ``batch.generated``."""
        generated_BChw, terms = batch.generated, dict[Loss, torch.Tensor]()
        if self._settings.critic:
            levels_B = draws.levels(generated_BChw, DMD_TOP, batch.shift)
            noisy_BChw = noised(generated_BChw, draws.noise(generated_BChw), levels_B)
            if "dmd" in self._settings.losses:
                real_BChw, fake_BChw = (
                    self._clean(model, noisy_BChw, levels_B, batch.conditioning)
                    for model in (self._teacher, self._critic)
                )
                terms["dmd"] = losses.distribution_matching(generated_BChw, real_BChw, fake_BChw)
            if "gan" in self._settings.losses:
                tokens_BND = features(self._critic, noisy_BChw, levels_B, batch.conditioning)
                terms["gan"] = GENERATOR_WEIGHT * losses.generator_loss(self._head(tokens_BND))
        if {"mmd", "patch"} & set(self._settings.losses):
            tokens_BND, real_BND = self._patches(batch, draws)
            if "mmd" in self._settings.losses:
                terms["mmd"] = losses.patch_mmd(tokens_BND, real_BND, self._settings.kernel)
            if "patch" in self._settings.losses:
                terms["patch"] = losses.patch_distance(tokens_BND, real_BND)
        return terms

    def critic(self, batch: StageBatch, draws: Draws) -> dict[str, torch.Tensor]:
        """Returns the critic's terms: denoising of generated images and, where asked for, telling them apart."""
        generated_BChw = batch.generated
        levels_B = draws.levels(generated_BChw, 1.0, batch.shift)
        eps_BChw = draws.noise(generated_BChw)
        velocity_BChw, generated_BND = velocity_and_features(
            self._critic, noised(generated_BChw, eps_BChw, levels_B), levels_B, batch.conditioning
        )
        terms = {"fake": F.mse_loss(velocity_BChw, eps_BChw - generated_BChw)}
        if "gan" in self._settings.losses:
            real_BChw = noised(batch.real, eps_BChw, levels_B)
            real_BND = features(self._critic, real_BChw, levels_B, batch.conditioning)
            loss = losses.discriminator_loss(self._head(real_BND), self._head(generated_BND))
            terms["discriminator"] = DISCRIMINATOR_WEIGHT * loss
        return terms

    @staticmethod
    @torch.no_grad()
    def _clean(
        model: PipelineModel, noisy_BChw: torch.Tensor, levels_B: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Predicts clean latents from latents at levels of their own."""
        return noisy_BChw - levels_B[:, None, None, None] * velocity(model, noisy_BChw, levels_B, conditioning)

    def _patches(self, batch: StageBatch, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the teacher's features of generated and of real images under the same noise, (B, N, D) each."""
        levels_B = draws.levels(batch.generated, MMD_TOP, batch.shift)
        eps_BChw = draws.noise(batch.generated)

        def tokens(clean_BChw: torch.Tensor) -> torch.Tensor:
            return features(self._teacher, noised(clean_BChw, eps_BChw, levels_B), levels_B, batch.conditioning)

        with torch.no_grad():
            real_BND = tokens(batch.real)
        return tokens(batch.generated), real_BND
