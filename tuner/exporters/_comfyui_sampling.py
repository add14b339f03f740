"""The samplers of a stage: one node for all its calls, or one per call where more than Euler's step is done.

What is exact and why:

- A sampler starts at ``sigma noise + (1 - sigma) latent`` and divides by ``1 - sigma`` at its end. From a clean
  latent that is our renoising, and after an early end it is with less noise, which ``ModelNoiseScale`` gives.
  Without noise the next sampler goes on where the one before ended, so that a stage can be cut anywhere.
- Guidance is done on predicted images, which for flow models equals guidance on velocities.
- A sampler of one step by Euler's rule gives the next latent and, as its second output, the clean latent that was
  predicted. What another rule adds to it are differences of such latents (`tuner.exporters._calls`), which
  ``LatentSubtract``, ``LatentMultiply`` and ``LatentAdd`` make. ComfyUI's own multistep samplers are other rules:
  on flows they count steps in the log of sigma.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tuner.exporters._calls import Call, calls_of
from tuner.exporters._comfyui_families import Family
from tuner.exporters._comfyui_graph import Graph, Link, told_level
from tuner.exporters.base import RefusedError, called_levels, fixed_point
from tuner.models._diffusers import PipelineBlueprint
from tuner.models.wan2p1_1p3b import WanBlueprint
from tuner.sampling import stage_seeds
from tuner.schedule import Schedule
from tuner.sigmas import renoising
from tuner.solvers import call_sigmas, calls_once_per_step

_TARGET = "ComfyUI"
_NATIVE = ("heun",)
"""Rules of more than one call per step that ``KSamplerSelect`` has by our name."""
_LARGEST_GUIDANCE = 100
_LARGEST_FACTOR = 10.0


class _Guide(NamedTuple):
    """What answers a call.

    Attributes:
        network: Number of the network, from 0.
        guidance: Guidance scale, as our model counts it; None where the network takes none.
        passes: Network passes.
    """

    network: int
    guidance: float | None
    passes: int


@dataclass(frozen=True)
class _Made:
    """What an earlier call predicted.

    Attributes:
        clean: Its clean latent.
        noisy: The latent that it mixed with noise at some level s; less the clean one it is ``s / (1 - s)`` noise.
        ratio: That multiple.
    """

    clean: Link
    noisy: Link
    ratio: float


class Sampling:
    """Adds samplers to a graph.

    Args:
        graph: Takes the nodes.
        schedule: What is exported.
        model: Its model.
        family: The model's nodes.
        networks: The loaded networks.
        positive: The prompt's conditioning.
        clip: The text encoders.
        seed: Noise seed of the image.
    """

    def __init__(
        self,
        graph: Graph,
        schedule: Schedule,
        model: PipelineBlueprint,
        family: Family,
        networks: Sequence[Link],
        positive: Link,
        clip: Link,
        seed: int,
    ):
        self.graph, self.schedule, self.model, self.family = graph, schedule, model, family
        self.networks, self.positive, self.clip, self.seed = networks, positive, clip, seed

    def stage(self, index: int, latent: Link) -> Link:
        """Adds the samplers of a stage after a latent of its size, and returns their result."""
        solver = self.schedule.solver_of(index)
        if not calls_once_per_step(solver):
            return self._native(index, solver, latent)
        calls = calls_of(_TARGET, self.schedule, index)
        guides = [self._guide(index, call.level) for call in calls]
        alone = any(call.corrections for call in calls)
        noise, scale = self._noise(index)
        made: list[_Made] = []
        for start, end in _runs(guides, alone):
            before, run = latent, calls[start:end]
            levels = (run[0].level, *(call.following for call in run))
            latent = self._sampler(index, "euler", levels, latent, noise, guides[start], scale)
            if end < len(calls):
                noise, scale = self.graph.add("DisableNoise"), 1.0
            if alone:
                made.append(_made(run[0], before if start else None, latent))
                latent = self._corrected(run[0], latent, made)
        return latent

    def _native(self, index: int, solver: str, latent: Link) -> Link:
        """Adds one sampler that steps by a rule of more than one call per step."""
        if solver not in _NATIVE:
            raise RefusedError(
                _TARGET, index, f"it has no sampler that steps as solver {solver!r} does", "use solver 'heun'"
            )
        levels = called_levels(_TARGET, self.schedule, index)
        asked = call_sigmas(solver, levels)
        guides = [self._guide(index, level) for level in asked]
        for level, (one, other) in zip(asked[1:], itertools.pairwise(guides), strict=True):
            if one != other:
                what = "guidance" if one.network == other.network else "its two networks"
                raise RefusedError(
                    _TARGET,
                    index,
                    f"a step of solver {solver!r} to sigma {level:g} asks at both sides of a change of {what}",
                    "use a solver of one call per step in this stage",
                )
        noise, scale = self._noise(index)
        return self._sampler(index, solver, levels, latent, noise, guides[0], scale)

    def _sampler(
        self,
        index: int,
        solver: str,
        levels: tuple[float, ...],
        latent: Link,
        noise: Link,
        guide: _Guide,
        scale: float,
    ) -> Link:
        return self.graph.add(
            "SamplerCustomAdvanced",
            f"stage {index + 1}",
            noise=noise,
            guider=self._guider(guide, scale),
            sampler=self.graph.add("KSamplerSelect", sampler_name=solver),
            sigmas=self.graph.add("ManualSigmas", sigmas=fixed_point(_TARGET, index, levels)),
            latent_image=latent,
        )

    def _corrected(self, call: Call, latent: Link, made: Sequence[_Made]) -> Link:
        """Adds to Euler's step what the stage's rule adds, divided by ``1 - sigma`` as all latents are."""
        for correction in call.corrections:
            now, earlier = made[-1], made[-1 - correction.back]
            if correction.clean:
                difference = self.graph.add("LatentSubtract", samples1=earlier.clean, samples2=now.clean)
                latent = self._added(latent, difference, correction.clean / (1 - told_level(call.following)))
            if correction.noise:
                weight = correction.noise / (1 - told_level(call.following))
                for one, sign in ((earlier, 1), (now, -1)):
                    difference = self.graph.add("LatentSubtract", samples1=one.noisy, samples2=one.clean)
                    latent = self._added(latent, difference, sign * weight / one.ratio)
        return latent

    def _added(self, latent: Link, difference: Link, weight: float) -> Link:
        while abs(weight) > _LARGEST_FACTOR:
            difference = self.graph.add("LatentMultiply", samples=difference, multiplier=_LARGEST_FACTOR)
            weight /= _LARGEST_FACTOR
        scaled = self.graph.add("LatentMultiply", samples=difference, multiplier=weight)
        return self.graph.add("LatentAdd", samples1=latent, samples2=scaled)

    def _noise(self, index: int) -> tuple[Link, float]:
        """Returns the noise that a stage starts with, and what it is multiplied by."""
        start = self.schedule.stages[index].sigmas[0]
        level = self.schedule.stages[index - 1].sigmas[-1] if index else 1.0
        if index and start == level:
            return self.graph.add("DisableNoise"), 1.0
        noise = self.graph.add("RandomNoise", noise_seed=stage_seeds([self.seed], index)[0])
        return noise, renoising(level, start)[1] / start if index and level else 1.0

    def _guide(self, index: int, level: float) -> _Guide:
        """Finds what answers a call at a noise level."""
        known = self.model.called(self.schedule.stages[index], level)
        if known.passes > 1 and self.family.guidance == "rescaled":
            raise RefusedError(
                _TARGET,
                index,
                f"{self.model.name} keeps the norm of guided velocities, which its guiders do not",
                "set guidance to 1, or use format 'diffusers'",
            )
        guidance = known.scale(level) if known.passes > 1 else known.guidance
        if guidance is not None and guidance > _LARGEST_GUIDANCE - 1:
            raise RefusedError(
                _TARGET, index, f"guidance {guidance:g} is above what its guiders take", "lower it below 99"
            )
        second = isinstance(self.model, WanBlueprint) and self.model.second(level)
        return _Guide(int(second), guidance, known.passes)

    def _guider(self, guide: _Guide, noise_scale: float) -> Link:
        """Adds a guider of one or two passes, for a model whose noise is multiplied."""
        model = self.networks[guide.network]
        if noise_scale != 1:
            if self.family.flux_sampling:  # has no noise to scale; with shift 1 this asks the network the same
                model = self.graph.add("ModelSamplingAuraFlow", model=model, shift=1.0)
            model = self.graph.add("ModelNoiseScale", model=model, noise_scale=round(noise_scale, 12))
        if self.family.guidance == "input" and guide.guidance is not None:
            told = self.graph.add("FluxGuidance", conditioning=self.positive, guidance=guide.guidance)
            return self.graph.add("BasicGuider", model=model, conditioning=told)
        if guide.passes == 1 or guide.guidance is None:
            return self.graph.add("BasicGuider", model=model, conditioning=self.positive)
        negative = self.graph.add("CLIPTextEncode", text=self.model.negative_prompt, clip=self.clip)
        cfg = guide.guidance + 1 if self.family.guidance == "added" else guide.guidance
        return self.graph.add("CFGGuider", model=model, positive=self.positive, negative=negative, cfg=cfg)


def _runs(guides: Sequence[_Guide], alone: bool) -> list[tuple[int, int]]:
    """Groups calls that one sampler makes: those with the same guide that follow each other, or each one alone."""
    starts = [k for k in range(len(guides)) if alone or k == 0 or guides[k] != guides[k - 1]]
    return list(itertools.pairwise([*starts, len(guides)]))


def _made(call: Call, before: Link | None, after: Link) -> _Made:
    """Notes what a call predicted.

    Args:
        call: The call, which has a sampler of its own.
        before: The latent that it was made at; None where noise was added to that.
        after: The sampler's result.
    """
    noisy, level = (after, call.following) if before is None else (before, call.level)
    told = told_level(level)
    return _Made([after[0], 1], noisy, told / (1 - told))
