"""Latents of a ComfyUI workflow: which samplers made them, and what was added between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tuner.exporters._comfyui_graph import told_level
from tuner.exporters._comfyui_kernels import KERNELS
from tuner.importers._comfyui_chains import FIRST, Chain, NetworkCall, Weights, added, after_euler
from tuner.importers._comfyui_guides import Guide, Guides, Nodes
from tuner.importers._comfyui_sigmas import Sigmas
from tuner.sigmas import renoising

_EMPTY = ("EmptySD3LatentImage", "EmptyFlux2LatentImage", "EmptyLatentImage", "EmptyHunyuanLatentVideo")
_SAMPLERS = ("euler", "heun")
_KERNELS = {theirs: ours for ours, theirs in KERNELS.items()}
_SAME = 1e-6


@dataclass
class _Latent:
    """A latent: the chain that made it, weights of the chain's latents, their sum, height and width."""

    chain: Chain | None
    weights: Weights
    whole: float
    size: tuple[int, int]


class Latents:
    """Walks the nodes that make a latent, first ones first.

    Args:
        nodes: The graph.
        guides: Reads guiders.
        sigmas: Reads noise levels.

    Attributes:
        chains: The samplers, in the order in which they run.
        frames: Frames of a video; None for images.
    """

    def __init__(self, nodes: Nodes, guides: Guides, sigmas: Sigmas):
        self._nodes, self._guides, self._sigmas = nodes, guides, sigmas
        self._made: dict[tuple[str, int], _Latent] = {}
        self.chains: list[Chain] = []
        self.frames: int | None = None

    def follow(self, link: list[Any]) -> tuple[int, int]:
        """Reads all that a latent is made of, and returns its height and width.

        Raises:
            UserError: If a node does what no preset does.
        """
        for number in self._before(link[0]):
            kind, inputs = self._nodes.at([number, 0])
            if kind in _EMPTY:
                self.frames = inputs.get("length")
                self._made[number, 0] = _Latent(None, {}, 1.0, (inputs["height"], inputs["width"]))
            elif kind in ("LatentAdd", "LatentSubtract", "LatentMultiply"):
                self._made[number, 0] = self._sum(number, kind, inputs)
            elif kind == "SamplerCustomAdvanced":
                sampler = self._nodes.at(inputs["sampler"])[1].get("sampler_name", "")
                silent = self._nodes.at(inputs["noise"])[0] == "DisableNoise"
                guide, levels = self._guides.read(inputs["guider"]), self._sigmas.read(inputs["sigmas"])
                self._sample(number, sampler, levels, guide, inputs["latent_image"], silent)
            elif kind == "KSampler":
                guide = self._guides.true(number, inputs)
                scheduled = inputs["scheduler"], inputs["steps"], inputs["denoise"]
                levels = self._sigmas.scheduled(inputs["model"], *scheduled)
                self._sample(number, inputs["sampler_name"], levels, guide, inputs["latent_image"], False)
        last = self._latent(link)
        self._end(last, link[0])
        return last.size

    def _before(self, number: str) -> Iterator[str]:
        """Lists a node and all those before it, each after those that it needs."""
        done: set[str] = set()
        waiting: dict[str, None] = {}
        stack = [(number, False)]
        while stack:
            number, ready = stack.pop()
            if ready:
                del waiting[number]
                done.add(number)
                yield number
            elif number in waiting:
                raise RecursionError(f"at node {number}")
            elif number not in done:
                waiting[number] = None
                stack.append((number, True))
                links = (value[0] for value in self._nodes.at([number, 0])[1].values() if isinstance(value, list))
                stack.extend((str(link), False) for link in links if link not in done)

    def _latent(self, link: list[Any]) -> _Latent:
        found = self._made.get((link[0], link[1]))
        if found is None:
            raise self._nodes.unknown(link[0])
        return found

    def _sum(self, number: str, kind: str, inputs: dict[str, Any]) -> _Latent:
        one = self._latent(inputs["samples" if kind == "LatentMultiply" else "samples1"])
        if kind == "LatentMultiply":
            factor = inputs["multiplier"]
            return _Latent(one.chain, added({}, one.weights, factor), factor * one.whole, one.size)
        other, factor = self._latent(inputs["samples2"]), 1.0 if kind == "LatentAdd" else -1.0
        if one.chain is None or one.chain is not other.chain:
            raise self._nodes.refused(number, "mixes latents of two stages")
        return _Latent(
            one.chain, added(one.weights, other.weights, factor), one.whole + factor * other.whole, one.size
        )

    def _sample(
        self, number: str, sampler: str, levels: list[float], guide: Guide, latent: list[Any], silent: bool
    ) -> None:
        """Adds a sampler to the chain that its latent is of, or to a new one."""
        if sampler not in _SAMPLERS:
            known = " and ".join(map(repr, _SAMPLERS))
            raise self._nodes.refused(number, f"has sampler {sampler!r}, a rule that is not read; use {known}")
        if len(levels) < 2 or any(not 1 >= high > low >= 0 for high, low in pairwise(levels)):
            told = ", ".join(f"{level:g}" for level in levels)
            raise self._nodes.refused(number, f"has levels that do not fall from 1 at most to 0 at least: {told}")
        entry, before = self._entered(number, latent)
        chain = before.chain
        level = 1.0 if chain is None else chain.levels[-1]
        if chain is None and (silent or guide.noise_scale != 1):
            raise self._nodes.refused(
                number, "is the first sampler and starts without noise, or with scaled noise"
            )
        if chain is not None:
            self._check_noise(number, level, levels[0], 0.0 if silent else guide.noise_scale)
        if chain is not None and silent and not entry and chain.sampler == sampler:
            self._settle(before, number)
        else:
            if chain is not None:
                self._end(before, number)
            chain = Chain(sampler, before.size, entry, levels[:1], states=[{FIRST: 1.0}])
            self.chains.append(chain)
        self._walk(number, chain, levels, guide)

    def _walk(self, number: str, chain: Chain, levels: list[float], guide: Guide) -> None:
        """Adds the steps of a sampler to a chain, and notes what it returns."""
        for level, following in pairwise(levels):
            call = len(chain.calls)
            title = self._nodes.title(number)
            chain.calls.append(NetworkCall(level, guide.guidance, guide.network, number, title))
            chain.levels.append(following)
            if chain.sampler == "euler":
                chain.states.append(after_euler(chain.states[-1], call, level, following))
            else:  # a latent that is nothing but itself: what is added to it is not looked into
                chain.states.append({FIRST - 1 - call: 1.0})
        kept = added({}, chain.states[-1], 1 / (1 - told_level(levels[-1])))
        self._made[number, 0] = _Latent(chain, kept, 1.0, chain.size)
        if chain.sampler == "euler":
            self._made[number, 1] = _Latent(chain, {len(chain.calls) - 1: 1.0}, 1.0, chain.size)

    def _settle(self, latent: _Latent, number: str) -> None:
        """Makes a latent the state that its chain has come to."""
        chain = latent.chain
        if chain is None or chain.ended:
            raise self._nodes.refused(number, "goes on from a latent that another sampler has gone on from")
        if abs(latent.whole - 1) > _SAME:
            raise self._nodes.refused(number, f"takes a latent that was multiplied by {latent.whole:g}")
        state = added({}, latent.weights, 1 - told_level(chain.levels[-1]))
        if chain.sampler != "euler" and any(
            abs(part) > _SAME for part in added(state, chain.states[-1], -1).values()
        ):
            raise self._nodes.refused(number, f"takes a sum of latents that sampler {chain.sampler!r} made")
        chain.states[-1] = state

    def _end(self, latent: _Latent, number: str) -> None:
        self._settle(latent, number)
        if latent.chain is not None:
            latent.chain.ended = True

    def _check_noise(self, number: str, level: float, start: float, given: float) -> None:
        """Refuses noise that does not take a latent from one level to the other."""
        if start < level - _SAME:
            raise self._nodes.refused(
                number, f"starts at sigma {start:g}, and the sampler before it ends higher, at {level:g}"
            )
        exact = 0.0 if abs(start - level) < _SAME else renoising(level, start)[1] / start
        if abs(exact - given) > _SAME * 10:
            raise self._nodes.refused(
                number,
                f"adds {given:g} of the noise, where {exact:g} leads from sigma {level:g} to {start:g}; use "
                "ModelNoiseScale, or DisableNoise where the levels are equal",
            )

    def _entered(self, number: str, link: list[Any]) -> tuple[dict[str, Any], _Latent]:
        """Returns how a sampler's latent changes size, and the latent at its new size, of the chain before."""
        kind, inputs = self._nodes.at(link)
        if kind == "VAEEncode":
            return self._by_pixels(inputs["pixels"])
        if kind not in ("LatentUpscaleBy", "LatentUpscale"):
            return {}, self._latent(link)
        method = inputs["upscale_method"]
        if method not in _KERNELS:
            known = ", ".join(_KERNELS)
            raise self._nodes.refused(
                link[0], f"resizes by {method!r}, which no kernel here does; use one of {known}"
            )
        before, factor = self._latent(inputs["samples"]), inputs.get("scale_by")
        size = (inputs["height"], inputs["width"]) if factor is None else _times(before.size, factor)
        if method == "bilinear" and size[0] < before.size[0]:
            raise self._nodes.refused(
                link[0], "does not average where it shrinks, and our 'bilinear' does; use 'area'"
            )
        return {"resample": _KERNELS[method]}, _Latent(before.chain, before.weights, before.whole, size)

    def _by_pixels(self, link: list[Any]) -> tuple[dict[str, Any], _Latent]:
        """Reads nodes that resize an image between two stages."""
        kind, scaled = self._nodes.at(link)
        if kind != "ImageScale" or scaled["upscale_method"] != "lanczos":
            raise self._nodes.unknown(link[0])
        entry = {"resample": "pixel"}
        link = scaled["image"]
        kind, inputs = self._nodes.at(link)
        if kind == "ImageUpscaleWithModel":
            entry["upscaler"] = self._nodes.at(inputs["upscale_model"])[1]["model_name"]
            link = inputs["image"]
            kind, inputs = self._nodes.at(link)
        if kind != "VAEDecode":
            raise self._nodes.unknown(link[0])
        before = self._latent(inputs["samples"])
        return entry, _Latent(before.chain, before.weights, before.whole, (scaled["height"], scaled["width"]))


def _times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(size[0] * factor), round(size[1] * factor)
