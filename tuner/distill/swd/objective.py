"""The training loss of one stage of the student, wired to the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tuner.distill.swd import losses
from tuner.distill.swd.draws import Draws
from tuner.distill.swd.networks import Head, features, velocity_and_features
from tuner.distill.swd.settings import Loss, SwdSettings
from tuner.models import Conditioning, FlowModel
from tuner.models._pipeline_model import PipelineModel
from tuner.sampling import renoise

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
    """

    real: torch.Tensor
    generated: torch.Tensor
    conditioning: Conditioning


def predict(model: FlowModel, x_BChw: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
    """Predicts the clean latents: one Euler step to 0."""
    return x_BChw - sigma * model.velocity(x_BChw, sigma, conditioning)


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
            sigma = draws.level(DMD_TOP)
            noised = renoise(generated_BChw, draws.noise(generated_BChw), 0.0, sigma)
            if "dmd" in self._settings.losses:
                with torch.no_grad():
                    real = predict(self._teacher, noised, sigma, batch.conditioning)
                    fake = predict(self._critic, noised, sigma, batch.conditioning)
                terms["dmd"] = losses.distribution_matching(generated_BChw, real, fake)
            if "gan" in self._settings.losses:
                tokens = features(self._critic, noised, sigma, batch.conditioning)
                terms["gan"] = GENERATOR_WEIGHT * losses.generator_loss(self._head(tokens))
        if "mmd" in self._settings.losses:
            terms["mmd"] = self._patch_loss(batch, draws)
        return terms

    def critic(self, batch: StageBatch, draws: Draws) -> dict[str, torch.Tensor]:
        """Returns the critic's terms: denoising of generated images and, where asked for, telling them apart."""
        generated_BChw = batch.generated
        sigma = draws.level(1.0)
        eps = draws.noise(generated_BChw)
        noised = renoise(generated_BChw, eps, 0.0, sigma)
        velocity, generated_tokens = velocity_and_features(self._critic, noised, sigma, batch.conditioning)
        terms = {"fake": F.mse_loss(velocity, eps - generated_BChw)}
        if "gan" in self._settings.losses:
            real = renoise(batch.real, eps, 0.0, sigma)
            real_tokens = features(self._critic, real, sigma, batch.conditioning)
            loss = losses.discriminator_loss(self._head(real_tokens), self._head(generated_tokens))
            terms["discriminator"] = DISCRIMINATOR_WEIGHT * loss
        return terms

    def _patch_loss(self, batch: StageBatch, draws: Draws) -> torch.Tensor:
        """Compares the teacher's features of generated and of real images under the same noise."""
        sigma = draws.level(MMD_TOP)
        eps = draws.noise(batch.generated)
        tokens = features(self._teacher, renoise(batch.generated, eps, 0.0, sigma), sigma, batch.conditioning)
        with torch.no_grad():
            real = features(self._teacher, renoise(batch.real, eps, 0.0, sigma), sigma, batch.conditioning)
        return losses.patch_mmd(tokens, real, self._settings.kernel)
