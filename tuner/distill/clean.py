"""The distance of predicted clean images, at few network calls.

The clean image that the network predicts from a candidate, ``x - sigma v``, costs a call. Near the teacher's
latent it follows the latent almost linearly, so earlier calls at the same level foretell it for all candidates.
The network is asked about the one that seems nearest, which improves the estimates of the others, and so on, until
it has been asked about the nearest one, or three times. The winner's velocity is also that of the next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuner.distill.candidates import Candidates
from tuner.distill.rule import Network
from tuner.distill.teacher import Choice, Teacher, mean_square, ranked

if TYPE_CHECKING:
    import torch

MOST_CALLS = 3
"""Network calls for the candidates of one (steps, level), the velocity of the next step included."""

_PROBES = 4
_MOST_VALUES = 1 << 18  # of a latent; as many as FLUX has at 1024 x 1024
_RIDGE = 1e-4  # against probes that are nearly parallel


@dataclass
class CleanDistance:
    """Measures candidates by their predicted clean images, and remembers what it was shown.

    Attributes:
        teacher: The trajectory to follow.
        network: The model.
        choice: How prompts choose; see `tuner.distill.table.fill`.
        probes: For each level the latest few latents that the network was asked about and the clean images that it
            predicted, both as differences to the teacher's, (P, D) with D values of each; see `_some`.
    """

    teacher: Teacher
    network: Network
    choice: Choice
    probes: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict, init=False)

    def measured(self, level: int, candidates: Candidates) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks at the candidates that seem nearest.

        Args:
            level: A level above sigma 0.
            candidates: I latents there for each of P prompts.

        Returns:
            Mean squared distances of clean images, (I, P), infinite where a candidate was not looked at; and the
            velocities of each prompt's best candidate, (P, ...).
        """
        import torch

        teacher, sigma = self.teacher, self.teacher.sigmas[level]
        prompts = torch.arange(candidates.prompts, device=teacher.x.device)
        probes = self.probes.setdefault(level, [])
        best = torch.zeros_like(teacher.velocity[level])
        far_IP: torch.Tensor | None = None
        for _ in range(MOST_CALLS):
            guess_IP = self._foretold(level, candidates)
            if far_IP is None:
                far_IP = torch.full_like(guess_IP, torch.inf)
            guess_IP = torch.where(far_IP.isfinite(), far_IP, guess_IP)
            near_P = ranked(guess_IP, self.choice).argmin(dim=0)
            if far_IP[near_P, prompts].isfinite().all():
                break
            x = candidates.picked(near_P)
            velocity = self.network(x, sigma)
            off = x - teacher.x[level]
            clean = off - sigma * (velocity - teacher.velocity[level])
            far_IP[near_P, prompts] = mean_square(clean, kept=1)
            better_P = ranked(far_IP, self.choice).argmin(dim=0) == near_P
            best = torch.where(better_P.view(-1, *[1] * (x.ndim - 1)), velocity, best)
            probes[:] = [*probes[1 - _PROBES :], (_some(off.flatten(1)), _some(clean.flatten(1)))]
        assert far_IP is not None  # there was at least one look
        return far_IP, best

    def _foretold(self, level: int, candidates: Candidates) -> torch.Tensor:
        """Estimates the mean squared distances of the clean images of all candidates, (I, P)."""
        import torch

        parts = []
        for rows, some in candidates.parts():
            off_IPD = _some((some - self.teacher.x[level, rows]).flatten(2))
            parts.append(_foretold(off_IPD, [(x[rows], clean[rows]) for x, clean in self.probes[level]]))
        return torch.cat(parts, dim=1)


def _some(values: torch.Tensor) -> torch.Tensor:
    """Returns the values that estimates are made of: all of a latent, or some thousands, evenly spread."""
    step = -(-values.shape[-1] // _MOST_VALUES)
    return values[..., ::step].clone() if step > 1 else values


def _foretold(off_IPD: torch.Tensor, probes: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Estimates mean squares of clean differences from those of latents.

    The part of a difference that lies in the span of the probes' latents is mapped as those were. The rest is
    taken to shrink as the probes did in the mean, and to be orthogonal to that part.
    """
    import torch

    if not probes:
        return mean_square(off_IPD, kept=2)
    x_PMD, clean_PMD = (torch.stack(both, dim=1) for both in zip(*probes, strict=True))
    gram = x_PMD @ x_PMD.transpose(1, 2)
    power_PM = gram.diagonal(dim1=1, dim2=2)
    tiny = torch.finfo(gram.dtype).tiny
    ridge = torch.diag_embed(_RIDGE * power_PM.mean(dim=1, keepdim=True).expand_as(power_PM) + tiny)
    parts_PMI = torch.linalg.solve(gram + ridge, torch.einsum("pmd,ipd->pmi", x_PMD, off_IPD))
    seen_IPD = torch.einsum("pmi,pmd->ipd", parts_PMI, clean_PMD)
    rest_IPD = off_IPD - torch.einsum("pmi,pmd->ipd", parts_PMI, x_PMD)
    gain_P = (clean_PMD.square().sum(dim=2) / (power_PM + tiny)).mean(dim=1)
    return mean_square(seen_IPD, kept=2) + gain_P * mean_square(rest_IPD, kept=2)
