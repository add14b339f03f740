"""Text that is encoded before anything is drawn, so that the text encoders need not stay in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tuner.invariance import batch_invariant

if TYPE_CHECKING:
    from tuner.models import Conditioning, FlowModel

Chunk = tuple[str, ...]


class Encodings:
    """Encodes chunks of prompts as `Evaluator` would, keeps the results on the CPU, and frees the text encoders.

    Args:
        model: The model; nothing else can be encoded with it afterwards.
        chunks: The prompts of every unit of work.
    """

    def __init__(self, model: FlowModel, chunks: Iterable[Chunk]):
        self._kept: dict[Chunk, Conditioning] = {}
        for chunk in dict.fromkeys(chunks):
            with batch_invariant(model):
                self._kept[chunk] = {name: rows.cpu() for name, rows in model.encode(chunk).items()}
        model.free_text_encoders()

    def of(self, prompts: Chunk, device: str) -> Conditioning:
        """Returns the conditioning of a chunk, or of a part of one, on a device.

        Raises:
            KeyError: If no chunk holds the prompts side by side.
        """
        for chunk, kept in self._kept.items():
            for start in range(len(chunk) - len(prompts) + 1):
                rows = slice(start, start + len(prompts))
                if chunk[rows] == prompts:
                    return {name: value[rows].to(device) for name, value in kept.items()}
        raise KeyError(f"nobody said that these prompts would be drawn: {prompts}")
