"""What answers a sampler's calls in ComfyUI: a network, its LoRA, and guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tuner.errors import UserError
from tuner.importers.base import unreadable
from tuner.models.base import Blueprint


class Nodes:
    """Looks nodes up, and names them in errors.

    Args:
        file: Name of the file.
        graph: Nodes by number.
    """

    def __init__(self, file: str, graph: dict[str, Any]):
        self.file, self.graph = file, graph

    def at(self, link: list[Any]) -> tuple[str, dict[str, Any]]:
        """Returns class and inputs of the node that a link comes from."""
        node = self.graph[link[0]]
        return node["class_type"], node["inputs"]

    def title(self, number: str) -> str:
        """Returns what a node is called on screen; empty for its usual name."""
        return str(self.graph[number].get("_meta", {}).get("title", ""))

    def refused(self, number: str, reason: str) -> UserError:
        """Builds the error for a node that no preset expresses."""
        kind = self.graph[number]["class_type"]
        return unreadable(self.file, f"node {kind!r} (number {number}) {reason}")

    def unknown(self, number: str) -> UserError:
        """Builds the error for a node of a class that is not read."""
        return self.refused(number, "is not known here; take it out of the chain")


class Guide(NamedTuple):
    """What answers the calls of a sampler.

    Attributes:
        guidance: Guidance scale, as our model counts it; None where no node says.
        network: Number of the node that loads the network.
        noise_scale: What noise is multiplied by at the start of the sampler.
    """

    guidance: float | None
    network: str
    noise_scale: float


class Guides:
    """Reads guiders, and collects what all of them must share.

    Args:
        nodes: The graph.
        model: The model, where it is known.

    Attributes:
        two_passes: Whether the model is one that makes a second pass.
        loras: The LoRAs of each guider, in the form of `ModelOptions.lora`.
        negatives: The negative prompts.
    """

    def __init__(self, nodes: Nodes, model: Blueprint | None):
        self._nodes = nodes
        self._counts_from_0 = model is not None and model.name.startswith("z-image")
        self.two_passes = model is not None and model.passes > 1
        self.loras: set[tuple[str, ...]] = set()
        self.negatives: set[str] = set()

    @property
    def off(self) -> float:
        """The scale of true guidance that makes no second pass."""
        return self.scaled(1.0)

    def scaled(self, cfg: float) -> float:
        """Returns our scale of true guidance for ComfyUI's, which counts from 1 for every model."""
        return cfg - 1 if self._counts_from_0 else cfg

    def read(self, link: list[Any]) -> Guide:
        """Reads a guider.

        Raises:
            UserError: If no preset has what it does.
        """
        kind, inputs = self._nodes.at(link)
        if kind == "BasicGuider":
            return self._guide(inputs["model"], self._told(inputs["conditioning"]))
        if kind == "CFGGuider":
            return self.true(link[0], inputs)
        raise self._nodes.unknown(link[0])

    def true(self, number: str, inputs: dict[str, Any]) -> Guide:
        """Reads the inputs of a guider or of ``KSampler``, whose second pass a scale of 1 turns off."""
        told, cfg = self._told(inputs["positive"]), inputs["cfg"]
        if cfg == 1:
            return self._guide(inputs["model"], told)
        if told is not None:
            raise self._nodes.refused(number, f"has cfg {cfg:g} beside FluxGuidance; leave one of them at 1")
        self.two_passes = True
        kind, negative = self._nodes.at(inputs["negative"])
        if kind != "CLIPTextEncode":
            raise self._nodes.unknown(inputs["negative"][0])
        self.negatives.add(negative["text"])
        return self._guide(inputs["model"], self.scaled(cfg))

    def _told(self, link: list[Any]) -> float | None:
        """Returns the scale of distilled guidance; None where no node sets it."""
        kind, inputs = self._nodes.at(link)
        if kind == "CLIPTextEncode":
            return None
        if kind != "FluxGuidance":
            raise self._nodes.unknown(link[0])
        self._told(inputs["conditioning"])
        return float(inputs["guidance"])

    def _guide(self, link: list[Any], guidance: float | None) -> Guide:
        """Follows the model to its loader."""
        noise_scale, loras = 1.0, []
        kind, inputs = self._nodes.at(link)
        while "model" in inputs:
            if kind == "ModelNoiseScale":
                noise_scale = inputs["noise_scale"]
            elif kind == "LoraLoaderModelOnly":
                loras.append(f"{Path(inputs['lora_name'])}:{inputs['strength_model']:g}")
            elif not kind.startswith("ModelSampling"):
                raise self._nodes.unknown(link[0])
            link = inputs["model"]
            kind, inputs = self._nodes.at(link)
        if len(loras) > 1:
            raise self._nodes.refused(link[0], "has more than one LoRA; merge them")
        self.loras.add(tuple(loras))
        return Guide(guidance, link[0], noise_scale)
