"""The score log: every finished evaluation of a study, on disk."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studies.records.folder import append, replace_file, saving
from studies.work.task import ChunkResult, Failure, Task
from tuner.errors import UserError

_Drawing: TypeAlias = tuple[str, str, int, int]
"""What an image is drawn with, but for the prompt and the seed: model fingerprint, drawing, height, width."""


class ScoreLine(BaseModel):
    """What a line of a score log must be; see `ScoreLog.put`."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    weights: str
    schedule: str
    size: tuple[int, int]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    tflops: float = Field(ge=0)
    elapsed_s: float = Field(ge=0)
    reused: dict[Literal["prefixes", "scores"], float] = {}
    scores: dict[str, tuple[float, ...]] | None = None
    made_by: dict[str, str] = {}
    runtime: str = ""
    failure: str | None = None
    transient: bool = False
    degenerate: dict[str, float] = {}
    seconds: dict[Literal["sampling", "decoding", "scoring", "references"], float] = {}

    @model_validator(mode="after")
    def _check(self) -> ScoreLine:
        lengths = {len(self.prompts), len(self.seeds), *map(len, (self.scores or {}).values())}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError("as many seeds and scores as prompts must hold.")
        if (self.scores is None) == (self.failure is None):
            raise ValueError("either scores or a failure must hold.")
        return self


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Reads a line of a score log; None if it is none, e.g. after a disk failed or an editor cut it."""
    try:
        ScoreLine.model_validate_json(line)
        found: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found


def whole_lines(path: Path) -> list[bytes]:
    """Returns the lines of a score log without an unfinished last one; none if there is no such file."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


class ScoreBook:
    """Scores in memory, by model fingerprint, drawing (see `drawing_key`), size, prompt, noise seed and objective.

    A large study has millions, so they are kept in arrays. Images of one prompt and one seed have one number.

    Args:
        weights: Fingerprint of the model.
        objectives: ``name:weights`` of each objective by its plain name.
    """

    def __init__(self, weights: str, objectives: Mapping[str, str]):
        self._weights = weights
        self._objectives = dict(objectives)
        self._numbers: dict[tuple[str, int], int] = {}
        self._scores: dict[_Drawing, dict[str, array[float]]] = {}  # by objective; NaN where there is none
        self._failures: dict[Any, Failure] = {}
        self.runtime = ""
        """Device type and precision that the scores were made with; see `FlowModel.runtime`."""

    def get(self, task: Task) -> ChunkResult | Failure | None:
        """Returns the known outcome of a task, without images, or None."""
        if (failure := self._failures.get((self._weights, task.key))) is not None:
            return failure
        known = self._scores.get((self._weights, task.drawing, *task.size), {})
        numbers = [self._numbers.get(image) for image in zip(task.prompts, task.seeds, strict=True)]
        found = {}
        for name, spec in self._objectives.items():
            row = known.get(spec, ())
            scores = [row[n] for n in numbers if n is not None and n < len(row) and not math.isnan(row[n])]
            if len(scores) < len(numbers):
                return None
            found[name] = scores
        return ChunkResult(found, runtime=self.runtime)

    def _remember(self, line: Mapping[str, Any]) -> None:
        weights, schedule, (height, width) = line["weights"], line["schedule"], line["size"]
        prompts, seeds = tuple(line["prompts"]), tuple(line["seeds"])
        if "failure" in line:
            failure = Failure(line["failure"], line.get("transient", False), line.get("degenerate", {}))
            self._failures[weights, (schedule, prompts, seeds, (height, width))] = failure
            return
        self.runtime = self.runtime or line.get("runtime", "")
        numbers = [
            self._numbers.setdefault(image, len(self._numbers)) for image in zip(prompts, seeds, strict=True)
        ]
        known = self._scores.setdefault((weights, schedule, height, width), {})
        for spec, scores in line["scores"].items():
            row = known.setdefault(spec, array("d"))
            row.extend([math.nan] * (max(numbers) + 1 - len(row)))
            for number, score in zip(numbers, scores, strict=True):
                row[number] = score


class ScoreLog(ScoreBook):
    """A study's own scores: an append-only file with one line per finished task.

    A line is on disk before ``put`` returns. An unfinished line of a killed process is dropped. Transient failures
    in the file are ignored, so a resumed study tries their tasks again. Lines that cannot be read are moved to
    ``scores.jsonl.rejected``, with a warning.

    Args:
        path: The file; created when first written.
        weights: Fingerprint of the model.
        objectives: ``name:weights`` of each objective by its plain name.
        made_by: What makes the scores of each objective, by ``name:weights``.
    """

    def __init__(self, path: Path, weights: str, objectives: Mapping[str, str], made_by: Mapping[str, str]):
        super().__init__(weights, objectives)
        self._path = path
        self._made_by = dict(made_by)
        self.tflops = 0.0
        """Denoiser TFLOPs of all lines."""
        self.reused = {"prefixes": 0.0, "scores": 0.0}
        """Denoiser TFLOPs that reuse saved: by cached stages of a worker, and by scores on disk."""
        self.elapsed_s = 0.0
        """Seconds spent on the study when the last line was written."""
        drop_unfinished_line(path)
        kept: list[bytes] = []
        rejected: list[bytes] = []
        for line in whole_lines(path):
            parsed = parse_line(line)
            (rejected if parsed is None else kept).append(line)
            if parsed is not None:
                self._remember(parsed)
        if rejected:
            self._set_aside(rejected, kept)
        self._failures = {key: failure for key, failure in self._failures.items() if not failure.transient}

    def _set_aside(self, rejected: Sequence[bytes], kept: Sequence[bytes]) -> None:
        """Moves lines that cannot be read to a file beside the log."""
        place = self._path.with_name(f"{self._path.name}.rejected")
        with saving(place):
            with place.open("ab") as file:
                file.writelines(line + b"\n" for line in rejected)
                file.flush()
                os.fsync(file.fileno())
            replace_file(self._path, b"".join(line + b"\n" for line in kept))
        warnings.warn(
            f"{len(rejected)} of {len(rejected) + len(kept)} lines of {str(self._path)!r} cannot be read and were "
            f"moved to {str(place)!r}; what they held runs again.",
            stacklevel=3,
        )

    def put(
        self,
        task: Task,
        outcome: ChunkResult | Failure,
        tflops: float,
        elapsed_s: float,
        reused: Mapping[str, float],
    ) -> None:
        """Writes the outcome of a task.

        Args:
            task: The task.
            outcome: Its outcome.
            tflops: Denoiser TFLOPs that it spent.
            elapsed_s: Seconds spent on the study so far.
            reused: Denoiser TFLOPs that it saved, by reason; see ``reused``.

        Raises:
            UserError: If the outcome was computed on another type of device, or in another precision, than the
                scores of the log: they would not be comparable.
        """
        if isinstance(outcome, ChunkResult) and self.runtime and outcome.runtime not in ("", self.runtime):
            raise UserError(
                f"A worker computes on {outcome.runtime}, but the scores so far are from {self.runtime}, which "
                "cannot be compared; go on with such workers (--gpus-per-worker, --dtype), or begin anew under "
                "another name, without earlier scores (--no-reuse)."
            )
        line: dict[str, Any] = {
            "weights": self._weights,
            "schedule": task.drawing,
            "size": task.size,
            "prompts": task.prompts,
            "seeds": task.seeds,
            "tflops": tflops,
            "reused": dict(reused),
            "elapsed_s": elapsed_s,
        }
        if isinstance(outcome, Failure):
            line |= {"failure": outcome.reason, "degenerate": dict(outcome.degenerate)}
            line |= {"transient": True} if outcome.transient else {}
        else:
            line["scores"] = {self._objectives[name]: list(scores) for name, scores in outcome.scores.items()}
            line["made_by"] = self._made_by
            line["runtime"] = outcome.runtime
            line["seconds"] = {name: round(seconds, 4) for name, seconds in outcome.seconds.items()}
        with saving(self._path):
            append(self._path, json.dumps(line).encode() + b"\n")
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        super()._remember(line)
        self.tflops += line["tflops"]
        for reason, tflops in line.get("reused", {}).items():
            self.reused[reason] += tflops
        self.elapsed_s = line["elapsed_s"]


class EarlierScores(ScoreBook):
    """Scores of other studies of the same model, read once from their score logs.

    A file that another process is writing is read up to its last whole line. Lines that cannot be read are left
    out, and so are failures: this machine may have more memory.

    Args:
        paths: The files.
        weights: Fingerprint of the model.
        objectives: ``name:weights`` of each objective by its plain name.
        made_by: What makes the scores of each objective; scores of another maker are left out.
        runtime: Device type and precision; scores of another are left out.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        weights: str,
        objectives: Mapping[str, str],
        made_by: Mapping[str, str],
        runtime: str,
    ):
        super().__init__(weights, objectives)
        self.runtime = runtime
        for path in paths:
            with contextlib.suppress(OSError):  # a study that cannot be read has nothing to give
                for line in whole_lines(path):
                    if weights.encode() in line and (parsed := parse_line(line)) is not None:
                        self._remember_scores(parsed, made_by)

    def _remember_scores(self, line: Mapping[str, Any], made_by: Mapping[str, str]) -> None:
        maker = line.get("made_by", {})
        scores = {
            spec: found for spec, found in line.get("scores", {}).items() if maker.get(spec) == made_by.get(spec)
        }
        if scores and line.get("runtime", "") == self.runtime:
            self._remember({**line, "scores": scores})


def drop_unfinished_line(path: Path) -> None:
    """Removes the unfinished last line that a killed process left in a file."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
