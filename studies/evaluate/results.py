"""The outcome of an evaluation, as the command line prints it and the folder keeps it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from studies.judge.noninferiority import NonInferiority
from studies.records.results import Checked
from tuner.models import ModelOptions
from tuner.presets import Score
from tuner.schedule import Schedule


class Against(BaseModel):
    """Paired differences to another row: its name, and a score for each objective."""

    model_config = ConfigDict(frozen=True)

    name: str
    scores: dict[str, Score]


class Evaluated(BaseModel):
    """One row: a schedule, its cost and its scores.

    Attributes:
        name: A preset's name, or ``plain:N``.
        schedule: The schedule.
        model_options: Options of its own that it ran with; None if the model was loaded with them.
        key: Key of its scores and images in the folder.
        tflops: TFLOPs per image.
        speedup: The baseline's TFLOPs over ``tflops``.
        nfe: Network forward passes per image.
        seconds: Measured seconds per image for sampling and decoding, the median over units of work; None where
            none was timed. It depends on the device and the batch, and on what else the machine does.
        prompts: On how many prompts it was scored.
        checked: Whether it is as good as the baseline, if presets were drawn until that was decided.
        failure: Why there are no scores; None if there are.
        degenerate: How many images had which fault; any makes the row fail, so that none is averaged.
        means: Mean score by objective.
        baseline: Paired differences to the baseline; empty for the baseline itself.
        non_inferior: What can be said about the loss against the baseline, by objective.
        plain: Differences to plain steps at the same cost, or the least that costs more; None for plain steps.
        dearer: Differences to the next dearer row that did not fail; None for the dearest.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    schedule: Schedule
    model_options: ModelOptions | None = None
    key: str
    tflops: float
    speedup: float
    nfe: int
    seconds: float | None = None
    prompts: int = 0
    checked: Checked | None = None
    failure: str | None = None
    degenerate: dict[str, int] = {}
    means: dict[str, float] = {}
    baseline: dict[str, Score] = {}
    non_inferior: dict[str, NonInferiority] = {}
    plain: Against | None = None
    dearer: Against | None = None


class EvalResult(BaseModel):
    """The whole outcome of an evaluation.

    Attributes:
        model: The model.
        weights: Fingerprint of the model.
        size: Output (height, width) in pixels.
        objectives: ``name:weights`` of each objective.
        prompt_set: Name of the prompt set, and which part of it was scored.
        prompts: How many prompts.
        seeds: Noise seeds of each prompt.
        images: Content hash of all prompts with their noise seeds.
        versions: Versions of the packages that decide the numbers.
        rows: The baseline and everything else, dearest first.
        baseline: Name of the baseline's row.
        chunk: Images that were drawn as one batch, which the seconds depend on.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    weights: str
    size: tuple[int, int]
    objectives: tuple[str, ...]
    prompt_set: str
    prompts: int
    seeds: int
    images: str
    versions: dict[str, str]
    baseline: str
    chunk: int
    rows: list[Evaluated]
