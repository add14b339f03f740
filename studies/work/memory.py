"""Recognises that memory ran out, halves a task, and joins the halves' results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from studies.work.task import ChunkResult, Failure, Task

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch raises a bare RuntimeError when the host's memory runs out


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's or the host's memory ran out."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )


def halves(task: Task) -> tuple[Task, Task]:
    """Splits a task of two or more prompts in the middle."""
    middle = len(task.prompts) // 2
    parts = slice(None, middle), slice(middle, None)
    first, second = (replace(task, prompts=task.prompts[part], seeds=task.seeds[part]) for part in parts)
    return first, second


def joined(outcomes: Sequence[ChunkResult | Failure]) -> ChunkResult | Failure:
    """Joins the outcomes of consecutive parts of a task.

    Only stages and first calls that every part took from a cache count as cached, so that the spent TFLOPs are
    never understated.

    Returns:
        The joined result, or the first failure.
    """
    results = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            return outcome
        results.append(outcome)
    return ChunkResult(
        scores={name: [score for one in results for score in one.scores[name]] for name in results[0].scores},
        seconds={name: sum(one.seconds[name] for one in results) for name in results[0].seconds},
        images=tuple(image for one in results for image in one.images),
        notes={name: note for one in reversed(results) for name, note in one.notes.items()},
        kept_stages=min(one.kept_stages for one in results),
        kept_calls=tuple(sorted(set.intersection(*(set(one.kept_calls) for one in results)))),
        runtime=results[0].runtime,
        redrawn=tuple(part for one in results for part in one.redrawn),
    )
