"""The finished evaluations of a study on disk: written once, never lost, never run again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from studies.evaluation import ChunkResult, Failure, Task

_Key: TypeAlias = tuple[str, str, int, int, str, int]


class ScoreLog:
    """An append-only file with one line per finished task; every score has a key of its own.

    A score is keyed by model fingerprint, schedule content hash, size, prompt, noise seed and objective. A line is
    on the disk before ``put`` returns; a line that a killed process left unfinished is dropped.

    Args:
        path: The file; created when first written.
        weights: Fingerprint of the model.
        objectives: ``name:weights`` of each objective by its plain name.
    """

    def __init__(self, path: Path, weights: str, objectives: Mapping[str, str]):
        self._path = path
        self._weights = weights
        self._objectives = dict(objectives)
        self._scores: dict[str, dict[_Key, float]] = {spec: {} for spec in self._objectives.values()}
        self._failures: dict[Any, Failure] = {}
        self.tflops = 0.0
        """Denoiser TFLOPs of all lines."""
        self.elapsed_s = 0.0
        """Seconds that had been spent on the study when the last line was written."""
        drop_unfinished_line(path)
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    self._remember(json.loads(line))

    def get(self, task: Task) -> ChunkResult | Failure | None:
        """Returns the outcome of a task, without images, if it has been run."""
        if (failure := self._failures.get((self._weights, task.key))) is not None:
            return failure
        found = {}
        for name, spec in self._objectives.items():
            scores = [self._scores[spec].get(key) for key in self._keys(task)]
            if any(score is None for score in scores):
                return None
            found[name] = [score for score in scores if score is not None]
        return ChunkResult(found)

    def put(self, task: Task, outcome: ChunkResult | Failure, tflops: float, elapsed_s: float) -> None:
        """Writes the outcome of a task.

        Args:
            task: What ran.
            outcome: What it gave.
            tflops: Denoiser TFLOPs that it took.
            elapsed_s: Seconds spent on the study so far.
        """
        line: dict[str, Any] = {
            "weights": self._weights,
            "schedule": task.schedule.content_hash,
            "size": task.size,
            "prompts": task.prompts,
            "seeds": task.seeds,
            "tflops": tflops,
            "elapsed_s": elapsed_s,
        }
        if isinstance(outcome, Failure):
            line |= {"failure": outcome.reason, "degenerate": dict(outcome.degenerate)}
        else:
            line["scores"] = {self._objectives[name]: list(scores) for name, scores in outcome.scores.items()}
            line["seconds"] = {name: round(seconds, 4) for name, seconds in outcome.seconds.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        self.tflops += line["tflops"]
        self.elapsed_s = line["elapsed_s"]
        weights, schedule, (height, width) = line["weights"], line["schedule"], line["size"]
        prompts, seeds = tuple(line["prompts"]), tuple(line["seeds"])
        if "failure" in line:
            failure = Failure(line["failure"], line.get("degenerate", {}))
            self._failures[weights, (schedule, prompts, seeds, (height, width))] = failure
            return
        for spec, scores in line["scores"].items():
            known = self._scores.setdefault(spec, {})
            for prompt, seed, score in zip(prompts, seeds, scores, strict=True):
                known[weights, schedule, height, width, prompt, seed] = score

    def _keys(self, task: Task) -> list[_Key]:
        schedule = task.schedule.content_hash
        return [
            (self._weights, schedule, *task.size, prompt, seed)
            for prompt, seed in zip(task.prompts, task.seeds, strict=True)
        ]


def drop_unfinished_line(path: Path) -> None:
    """Cuts off what a killed process wrote after the last line break of a file, if the file exists."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
