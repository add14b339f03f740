"""ComfyUI workflows in API format: the chain of samplers that an output node shows, read backwards.

Read are the nodes that ``tuner export --format comfyui`` writes, and ``KSampler`` and ``BasicScheduler`` with the
scheduler ``simple``. A node that is not known is refused, because what it does would be lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuner.exporters._comfyui_kernels import KERNELS
from tuner.importers._comfyui_sigmas import Sigmas
from tuner.importers.base import Found, unreadable
from tuner.models._options import ModelOptions
from tuner.models.base import Blueprint
from tuner.presets import ANY_MODEL
from tuner.sigmas import renoising

_SAVES = ("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "CreateVideo")
_EMPTY = ("EmptySD3LatentImage", "EmptyFlux2LatentImage", "EmptyLatentImage", "EmptyHunyuanLatentVideo")
_SOLVERS = {"euler": "euler", "heun": "heun"}
_KERNELS = {theirs: ours for ours, theirs in KERNELS.items()}
_MODELS = {
    "flux": "flux",
    "flux2": "flux2",
    "chroma": "chroma",
    "lumina2": "z-image",
    "qwen_image": "qwen-image",
    "hunyuan_video": "hunyuan-video",
}
"""The model that a type of text encoder loader is for, where there is one."""
_SAME = 1e-6


def read_graph(file: str, graph: dict[str, Any], model: Blueprint | None) -> Found:
    """Reads a workflow.

    Args:
        file: Name of the file.
        graph: Nodes by number.
        model: What it is for; by default the text encoders tell.

    Raises:
        UserError: If it is no workflow in API format, or if no preset does what it does.
    """
    if "nodes" in graph and "links" in graph:
        raise unreadable(
            file, "it is a workflow for the screen; save it with `Export (API)`, or give a saved image"
        )
    if not graph or not all(isinstance(node, dict) and "class_type" in node for node in graph.values()):
        raise unreadable(file, "it holds neither a workflow, nor levels, nor a scheduler's configuration")
    try:
        return _Reader(file, graph, model).found()
    except (KeyError, TypeError, RecursionError) as error:
        raise unreadable(file, f"a node lacks an input, or its links run in a circle ({error})") from error


class _Reader:
    """Collects stages from the last sampler to the first."""

    def __init__(self, file: str, graph: dict[str, Any], model: Blueprint | None):
        self.file, self.graph = file, graph
        guessed = [_MODELS[kind] for node in graph.values() if (kind := node["inputs"].get("type")) in _MODELS]
        self.model = model.name if model else (guessed[0] if guessed else ANY_MODEL)
        self.sigmas = Sigmas(file, graph, self.model)
        self.stages: list[dict[str, Any]] = []
        self.lora: set[str] = set()
        self.two_passes = model is not None and model.passes > 1

    def found(self) -> Found:
        """Walks from the output to the empty latent, then gives every stage its scale."""
        saved = [node for node in self.graph.values() if node["class_type"] in _SAVES]
        if not saved:
            raise unreadable(self.file, f"it has none of the output nodes {', '.join(_SAVES)}")
        decode = self._node(saved[-1]["inputs"]["images"])
        if decode["class_type"] != "VAEDecode":
            raise self._unknown(decode)
        self._latent(decode["inputs"]["samples"])
        self.stages.reverse()
        if len(self.lora) > 1:
            raise unreadable(self.file, "its samplers have more than one LoRA")
        size = self.stages[-1].pop("size")
        for index, stage in enumerate(self.stages):
            self._scale(index, stage, size)
        options = ModelOptions(guidance=self._shared_guidance(), lora=next(iter(self.lora), None))
        return Found("ComfyUI workflow", self.stages, self.stages[-1]["solver"], self.model, size, options)

    def _shared_guidance(self) -> float | None:
        """Takes the guidance scale off the stages if it is that of all, and returns it."""
        for stage in self.stages:
            if stage["guidance"] is None and self.two_passes:
                stage["guidance"] = self._true_guidance(1.0)  # the prompt's own pass alone
        scales = {stage.get("guidance") for stage in self.stages}
        if len(scales) > 1:
            return None
        for stage in self.stages:
            stage.pop("guidance", None)
        return scales.pop()

    def _node(self, link: list[Any]) -> dict[str, Any]:
        node: dict[str, Any] = self.graph[link[0]]
        return node

    def _unknown(self, node: dict[str, Any]) -> Exception:
        return unreadable(self.file, f"node {node['class_type']!r} is not known here; take it out of the chain")

    def _latent(self, link: list[Any]) -> tuple[int, int]:
        """Follows a latent to its start, adds the stages that made it, first ones last, and returns its size."""
        node = self._node(link)
        kind, inputs = node["class_type"], node["inputs"]
        if kind in _EMPTY:
            return inputs["height"], inputs["width"]
        if kind == "SamplerCustomAdvanced" and link[1] == 0:
            return self._sampler(inputs, self.sigmas.read(inputs["sigmas"]))
        if kind == "KSampler":
            return self._ksampler(inputs)
        raise self._unknown(node)

    def _sampler(self, inputs: dict[str, Any], levels: list[float]) -> tuple[int, int]:
        """Adds a stage, or the first part of the stage that is there."""
        solver = self._solver(self._node(inputs["sampler"])["inputs"].get("sampler_name", ""))
        noise_scale, guidance = self._guider(self._node(inputs["guider"]))
        silent = self._node(inputs["noise"])["class_type"] == "DisableNoise"
        stage = {"sigmas": levels, "solver": solver, "guidance": guidance}
        return self._stage(stage, inputs["latent_image"], silent, noise_scale)

    def _ksampler(self, inputs: dict[str, Any]) -> tuple[int, int]:
        solver = self._solver(inputs["sampler_name"])
        levels = self.sigmas.scheduled(inputs["model"], inputs["scheduler"], inputs["steps"], inputs["denoise"])
        guidance = self._conditioning(inputs["positive"])
        if inputs["cfg"] != 1:
            guidance = self._true_guidance(inputs["cfg"])
        stage = {"sigmas": levels, "solver": solver, "guidance": guidance}
        return self._stage(stage, inputs["latent_image"], False, self._model(inputs["model"]))

    def _stage(
        self, stage: dict[str, Any], latent: list[Any], silent: bool, noise_scale: float
    ) -> tuple[int, int]:
        """Adds a stage and what comes before it; where that goes on in the same way, both are one."""
        levels = stage["sigmas"]
        self.stages.append(stage)
        resized = self._resize(latent, stage)
        size = self._latent(resized or latent)
        stage["size"] = size = self._grown(stage, size)
        before = self.stages[self.stages.index(stage) + 1 :]
        if not before:
            if silent or noise_scale != 1:
                raise unreadable(self.file, "its first sampler starts without noise, or with scaled noise")
            return size
        self._check_noise(before[0]["sigmas"][-1], levels[0], silent, noise_scale)
        first = before[0]
        if silent and not resized and all(first[name] == stage[name] for name in ("solver", "guidance")):
            first["sigmas"] = [*first["sigmas"], *levels[1:]]
            self.stages.remove(stage)
        return size

    def _check_noise(self, level: float, start: float, silent: bool, noise_scale: float) -> None:
        """Refuses noise that does not take a latent from one level to the other."""
        if start < level - _SAME:
            raise unreadable(
                self.file, f"a sampler ends at sigma {level:g} and the next starts lower, at {start:g}"
            )
        exact = 0.0 if abs(start - level) < _SAME else renoising(level, start)[1] / start
        given = 0.0 if silent else noise_scale
        if abs(exact - given) > _SAME * 10:
            raise unreadable(
                self.file,
                f"from sigma {level:g} to {start:g} it adds {given:g} of the noise, {exact:g} keeps the level; "
                "use ModelNoiseScale, or DisableNoise where the levels are equal",
            )

    def _resize(self, link: list[Any], stage: dict[str, Any]) -> list[Any] | None:
        """Notes how the latent before changes size, and returns the link to it; None where it does not."""
        node = self._node(link)
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "VAEEncode":
            scale = self._node(inputs["pixels"])
            if scale["class_type"] != "ImageScale" or scale["inputs"]["upscale_method"] != "lanczos":
                raise self._unknown(scale)
            stage |= {"resample": "pixel", "to": (scale["inputs"]["height"], scale["inputs"]["width"])}
            image = self._node(scale["inputs"]["image"])
            if image["class_type"] == "ImageUpscaleWithModel":
                stage["upscaler"] = self._node(image["inputs"]["upscale_model"])["inputs"]["model_name"]
                image = self._node(image["inputs"]["image"])
            if image["class_type"] != "VAEDecode":
                raise self._unknown(image)
            samples: list[Any] = image["inputs"]["samples"]
            return samples
        if kind not in ("LatentUpscaleBy", "LatentUpscale"):
            return None
        method = inputs["upscale_method"]
        if method not in _KERNELS:
            known = ", ".join(_KERNELS)
            raise unreadable(self.file, f"no kernel here resizes as {method!r} does; use one of {known}")
        stage["resample"] = _KERNELS[method]
        stage["to"] = inputs.get("scale_by") or (inputs["height"], inputs["width"])
        before: list[Any] = inputs["samples"]
        return before

    def _grown(self, stage: dict[str, Any], size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size of a stage from that of the stage before."""
        grown = stage.pop("to", size)
        if isinstance(grown, float | int):
            grown = round(size[0] * grown), round(size[1] * grown)
        if stage.get("resample") == "bilinear" and grown[0] < size[0]:
            raise unreadable(self.file, "its kernel 'bilinear' does not average where it shrinks; ours does")
        return grown[0], grown[1]

    def _scale(self, index: int, stage: dict[str, Any], size: tuple[int, int]) -> None:
        """Turns a stage's size into a fraction of the output's."""
        height, width = stage.pop("size", size)
        if max(height / size[0], width / size[1]) > 1:
            raise unreadable(self.file, f"stage {index + 1} is larger than the output, which no stage may be")
        stage["scale"] = height / size[0]
        if abs(width / size[1] - stage["scale"]) > 1e-2:
            raise unreadable(self.file, f"stage {index + 1} has another aspect ratio than the output")

    def _solver(self, name: str) -> str:
        if name not in _SOLVERS:
            raise unreadable(
                self.file, f"no solver here steps as sampler {name!r} does; use {', '.join(_SOLVERS)}"
            )
        return _SOLVERS[name]

    def _guider(self, node: dict[str, Any]) -> tuple[float, float | None]:
        """Notes the LoRA, and returns the scale of the noise and that of guidance."""
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "BasicGuider":
            guidance = self._conditioning(inputs["conditioning"])
        elif kind == "CFGGuider":
            self._conditioning(inputs["positive"])
            guidance = self._true_guidance(inputs["cfg"])
        else:
            raise self._unknown(node)
        return self._model(inputs["model"]), guidance

    def _true_guidance(self, cfg: float) -> float:
        self.two_passes = True
        return cfg - 1 if self.model.startswith("z-image") else cfg

    def _conditioning(self, link: list[Any]) -> float | None:
        node = self._node(link)
        return node["inputs"]["guidance"] if node["class_type"] == "FluxGuidance" else None

    def _model(self, link: list[Any]) -> float:
        """Follows the model to its loader."""
        node, scale = self._node(link), 1.0
        while "model" in node["inputs"]:
            kind, inputs = node["class_type"], node["inputs"]
            if kind == "ModelNoiseScale":
                scale = inputs["noise_scale"]
            elif kind == "LoraLoaderModelOnly":
                self.lora.add(f"{Path(inputs['lora_name'])}:{inputs['strength_model']:g}")
            elif not kind.startswith("ModelSampling"):
                raise self._unknown(node)
            node = self._node(inputs["model"])
        return scale
