"""ComfyUI workflows in API format: the samplers behind an output node, as stages.

Read are the nodes that ``tuner export --format comfyui`` writes, and ``KSampler`` and ``BasicScheduler`` with the
scheduler ``simple``. A node that is not known is refused, because what it does would be lost.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tuner.exporters._comfyui_families import FAMILIES
from tuner.importers._comfyui_chains import Chain, NetworkCall, Part, parts_of
from tuner.importers._comfyui_guides import Guides, Nodes
from tuner.importers._comfyui_latents import Latents
from tuner.importers._comfyui_sigmas import Sigmas
from tuner.importers.base import Reading, unreadable
from tuner.models import available, blueprint
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._options import ModelOptions
from tuner.models.base import Blueprint, Size
from tuner.models.wan2p1_1p3b import WanBlueprint
from tuner.presets import ANY_MODEL

_SAVES = ("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "CreateVideo")
_MODELS = {
    "flux": "flux",
    "flux2": "flux2",
    "chroma": "chroma",
    "lumina2": "z-image",
    "qwen_image": "qwen-image",
    "hunyuan_video": "hunyuan-video",
}
"""The model that a type of text encoder loader is for, where there is one."""


def read_graph(file: str, graph: dict[str, Any], model: Blueprint | None) -> Reading:
    """Reads a workflow.

    Args:
        file: Name of the file.
        graph: Nodes by number.
        model: What it is for; by default the names of its files tell, or the text encoders.

    Raises:
        UserError: If it is no workflow in API format, or if no preset does what it does.
    """
    if "nodes" in graph and "links" in graph:
        raise unreadable(
            file, "it is a workflow for the screen; save it with `Export (API)`, or give a saved image"
        )
    nodes = graph.values()
    if not graph or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict) for node in nodes
    ):
        raise unreadable(file, "it holds neither a workflow, nor levels, nor a scheduler's configuration")
    try:
        return _Reader(file, graph, model).found()
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise unreadable(file, f"a node lacks an input, or its links run in a circle ({error})") from error


def _guessed(graph: dict[str, Any]) -> Blueprint | None:
    """Finds the model by the file of its network, if that is named after a model here, or by its text encoders."""
    nodes = [node["inputs"] for node in graph.values()]
    files = [Path(str(inputs["unet_name"])).stem for inputs in nodes if "unet_name" in inputs]
    named = {file.removesuffix("-high-noise") for file in files} & set(available())
    typed = [_MODELS[kind] for inputs in nodes if (kind := inputs.get("type")) in _MODELS]
    found = [*named, *typed]
    return blueprint(found[0]) if found else None


class _Reader:
    """Makes stages of the samplers."""

    def __init__(self, file: str, graph: dict[str, Any], model: Blueprint | None):
        self.file, self.graph, self.model = file, graph, model or _guessed(graph)
        self.name = self.model.name if self.model else ANY_MODEL
        self.nodes = Nodes(file, graph)
        self.guides = Guides(self.nodes, self.model)
        self.latents = Latents(self.nodes, self.guides, Sigmas(file, graph, self.name))

    def found(self) -> Reading:
        """Walks from the empty latent to the output."""
        saved = [node for node in self.graph.values() if node["class_type"] in _SAVES]
        if not saved:
            raise unreadable(self.file, f"it has none of the output nodes {', '.join(_SAVES)}")
        link = saved[-1]["inputs"]["images"]
        kind, inputs = self.nodes.at(link)
        if kind != "VAEDecode":
            raise self.nodes.unknown(link[0])
        size = self._pixels(self.latents.follow(inputs["samples"]))
        if min(size) < 1:
            raise self.nodes.refused(inputs["samples"][0], "gives a latent without pixels")
        chains = self.latents.chains
        self._check_networks(chains)
        stages = [stage for chain in chains for stage in self._stages(chain, size)]
        shared = ModelOptions(
            guidance=self._shared_guidance(stages), lora=self._lora(), frames=self._frames(), **self._negative()
        )
        return Reading("ComfyUI workflow", stages, stages[-1]["solver"], self.name, size, shared)

    def _stages(self, chain: Chain, size: Size) -> list[dict[str, Any]]:
        """Makes stages of a chain: one, unless its rule or its guidance changes."""
        parts, failed = parts_of(chain)
        if failed is not None:
            raise self.nodes.refused(
                chain.calls[failed].node, "and the latents that are added to it are no step of a solver here"
            )
        stages = [stage for part in parts for stage in self._guided(part)]
        scale = {"scale": self._scale(chain, size)}
        return [stage | scale | (chain.entry if k == 0 else {}) for k, stage in enumerate(stages)]

    def _guided(self, part: Part) -> list[dict[str, Any]]:
        """Gives steps their guidance: that of the model, one scale, one in an interval, or one in each stage."""
        scales = [self._scaled(call) for call in part.calls]
        whole = {"sigmas": part.levels, "solver": part.solver}
        if self._two_networks() and scales == [self._own(call.level) for call in part.calls]:
            return [whole]
        if len(set(scales)) == 1:
            return [whole | {"guidance": scales[0]}]
        runs = [list(run) for _, run in itertools.groupby(range(len(scales)), scales.__getitem__)]
        on = [run for run in runs if scales[run[0]] != self.guides.off]
        if self.guides.two_passes and len(on) == 1 and part.solver != "heun":
            interval = part.levels[on[0][0]], part.levels[on[0][-1] + 1]
            return [whole | {"guidance": scales[on[0][0]], "guide": interval}]
        if not part.divides:
            raise self.nodes.refused(
                part.calls[runs[1][0]].node,
                f"has guidance {scales[runs[1][0]]} in the middle of a stage of {part.solver!r}, which remembers "
                "steps; a stage has one scale",
            )
        return [whole | {"sigmas": part.levels[run[0] : run[-1] + 2], "guidance": scales[run[0]]} for run in runs]

    def _scaled(self, call: NetworkCall) -> float | None:
        """Returns the scale of a call: where nothing says, a model of two passes makes the prompt's own alone."""
        return self.guides.off if call.guidance is None and self.guides.two_passes else call.guidance

    def _two_networks(self) -> bool:
        return isinstance(self.model, WanBlueprint) and self.model.boundary > 0

    def _own(self, level: float) -> float | None:
        return self.model.scale(level) if isinstance(self.model, WanBlueprint) else None

    def _shared_guidance(self, stages: list[dict[str, Any]]) -> float | None:
        """Takes the guidance scale off the stages if it is that of all, and returns it.

        A model with two networks keeps that of the second, so that its stages name theirs.
        """
        scales = {stage.get("guidance") for stage in stages}
        if len(scales) > 1 or self._two_networks():
            return None
        for stage in stages:
            stage.pop("guidance", None)
        return scales.pop()

    def _lora(self) -> str | None:
        if len(self.guides.loras) > 1:
            raise unreadable(self.file, "its samplers do not all have the same LoRA")
        return next(iter(*self.guides.loras), None)

    def _frames(self) -> int | None:
        """Returns the length of a video, if it is another than the model's."""
        frames = self.latents.frames
        return None if self.model and frames == self.model.frames else frames

    def _negative(self) -> dict[str, Any]:
        """Returns the negative prompt as an option, if it is another than the model's."""
        if len(self.guides.negatives) > 1:
            raise unreadable(self.file, "its samplers have more than one negative prompt")
        own = self.model.negative_prompt if self.model else ""
        others = self.guides.negatives - {own}
        return {"negative_prompt": others.pop()} if others else {}

    def _check_networks(self, chains: list[Chain]) -> None:
        """Refuses samplers that do not call the network that the model has at their level."""
        calls = [call for chain in chains for call in chain.calls]
        first = calls[0].network
        others = {call.network for call in calls} - {first}
        model = self.model
        if not isinstance(model, WanBlueprint) or not model.boundary:
            if others:
                raise self.nodes.refused(min(others), "loads a second network; a preset has one")
            return
        for chain in chains:
            for call, following in zip(chain.calls, chain.levels[1:], strict=True):
                asked = [call.level] + [following] * (chain.sampler == "heun" and following > 0)
                if len(others) > 1 or any(model.second(level) != (call.network != first) for level in asked):
                    raise self.nodes.refused(
                        call.node,
                        f"asks another network at sigma {call.level:g} than {model.name} has there, whose second "
                        f"one begins below {model.boundary:g}",
                    )

    def _scale(self, chain: Chain, size: Size) -> float:
        """Returns a chain's size as a fraction of the output's that the model rounds to it."""
        node, sides = chain.calls[0].node, self._pixels(chain.size)
        ratios = [side / whole for side, whole in zip(sides, size, strict=True)]
        if max(ratios) > 1:
            raise self.nodes.refused(node, "has a larger latent than the output, which no stage may have")
        half = self.model.multiple / 2 if self.model else 0.0
        lowest = max((side - half) / whole for side, whole in zip(sides, size, strict=True))
        highest = min((side + half) / whole for side, whole in zip(sides, size, strict=True))
        scale = ratios[0] if lowest <= ratios[0] <= highest else (lowest + highest) / 2
        if lowest > highest or (self.model and self.model.stage_size(size, scale) != sides):
            raise self.nodes.refused(
                node, "has a latent of another aspect ratio than the output, or of a size of none"
            )
        return scale

    def _pixels(self, size: Size) -> Size:
        """Returns height and width in pixels of the model for those that nodes count."""
        model = self.model
        if not isinstance(model, PipelineBlueprint):
            return size
        family = FAMILIES.get(model.exported_as or model.pipeline_class)
        if family is None:
            return size
        of_a_latent_pixel = model.vae_factor * (2 if family.patches else 1)
        return size[0] // family.pixels * of_a_latent_pixel, size[1] // family.pixels * of_a_latent_pixel
