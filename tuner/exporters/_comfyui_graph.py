"""A graph in ComfyUI's API format: an object of nodes, whose inputs are values or links ``[node, output]``."""

from __future__ import annotations

import json
from typing import Any

Link = list[Any]


class Graph:
    """Collects nodes, numbered in the order in which they are added; equal nodes are one."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, str] = {}

    def add(self, class_type: str, title: str = "", **inputs: Any) -> Link:
        """Adds a node, unless an equal one is there, and returns a link to its first output.

        Args:
            class_type: ComfyUI's name of the node.
            title: What the node is called on screen; by default its usual name.
            inputs: Values, or links that this method returned.
        """
        node: dict[str, Any] = {"class_type": class_type, "inputs": inputs}
        if title:
            node["_meta"] = {"title": title}
        text = json.dumps(node)
        if text not in self._numbers:
            self._numbers[text] = str(len(self._nodes) + 1)
            self._nodes[self._numbers[text]] = node
        return [self._numbers[text], 0]

    def to_json(self) -> str:
        """Writes the graph."""
        return json.dumps(self._nodes, indent=2, ensure_ascii=False) + "\n"


def told_level(level: float) -> float:
    """Returns the level that ``ManualSigmas`` makes of what is written; near 1 it matters by what it divides."""
    import numpy as np

    return float(np.float32(f"{level:.9f}"))
