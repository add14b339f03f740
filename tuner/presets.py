"""Presets: a schedule on file, with its model, cost and origin.

The published methods ship as ``presets/*.yaml``; a search exports its winner in the same format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner import hub, solvers
from tuner.errors import UserError, one_line, unknown_name
from tuner.models._options import ModelOptions
from tuner.schedule import Schedule
from tuner.text_files import MEBIBYTE, read_text, write

if TYPE_CHECKING:
    from tuner.models import Blueprint

ANY_MODEL = "any"
"""The ``model`` of a preset that was made for no family in particular."""

MOST_BYTES = 4 * MEBIBYTE
"""The largest preset file that is read."""
PLAIN = "plain:"
"""Prefix of plain steps, as in ``plain:12``, and ``plain:12-dpmpp-2m`` with another solver."""

SCHEMA_FILE = "preset.schema.json"
"""Where editors look for the schema: beside the preset; ``tuner presets --schema`` prints it."""

_FOLDER = Path(__file__).parent / "presets"


class Score(BaseModel):
    """A mean score over prompts and its paired difference to the baseline.

    Attributes:
        mean: Mean over prompts.
        delta: Mean over prompts of (this schedule's score minus the baseline's), same prompt, same noise.
        ci95: 95 % bootstrap interval of ``delta``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    delta: float
    ci95: tuple[float, float]


class Cost(BaseModel):
    """Cost of a schedule per image; ``speedup`` is the baseline's TFLOPs over the schedule's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tflops: float
    nfe: int
    speedup: float


class Provenance(BaseModel):
    """Everything that reproduces the recorded scores.

    Attributes:
        study: Name of the study.
        trial: Number of the trial.
        seed: Seed of the study.
        image_seeds: First noise seed; image i of the prompt set has ``image_seeds + i``.
        prompts_hash: Content hash of the prompt set that was scored.
        prompts: How many prompts were scored.
        objectives: The objectives as they were asked for, with their weights.
        versions: Versions of the packages that decide the numbers.
        created: When the study was started, ISO 8601.
        device: Type of the device that drew the images, ``cpu`` or ``cuda``; None if it is not known.
        dtype: Precision of the weights; None if it is not known.
        target: Format of ``tuner export`` that carries every schedule of the study exactly; None if not asked for.
        learnt_from: Earlier studies that informed proposals, each with a hash of what it knew; None for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    trial: int
    seed: int
    image_seeds: int
    prompts_hash: str
    prompts: int
    objectives: tuple[str, ...]
    versions: dict[str, str]
    created: str
    device: str | None = None
    dtype: str | None = None
    target: str | None = None
    learnt_from: tuple[str, ...] | None = None


class Preset(BaseModel):
    """A schedule on file.

    Attributes:
        name: What it is called.
        model: Short name or source of the model that it was made for, or ``any``.
        source: Citation, or the study that found it.
        notes: Which numbers are the source's and which are ours.
        height: Output height in pixels.
        width: Output width in pixels.
        schedule: What runs.
        model_options: Guidance, negative prompt and LoRA that the schedule was made for, where they are not the
            model's own. In a file, a LoRA whose source starts with ``./`` lies beside the file.
        cost: Cost on ``model`` at this size, where known.
        scores: Scores on prompts that the search never saw, where known.
        search_scores: Scores on the prompts that the search used, where known.
        provenance: Where the scores come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: str
    source: str
    notes: str = ""
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    schedule: Schedule
    model_options: ModelOptions | None = None
    cost: Cost | None = None
    scores: dict[str, Score] = Field(default_factory=dict)
    search_scores: dict[str, Score] = Field(default_factory=dict)
    provenance: Provenance | None = None


def available() -> list[str]:
    """Lists the names of the shipped presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(
    preset: str | os.PathLike[str], model: Blueprint | None = None, size: tuple[int, int] | None = None
) -> Preset:
    """Reads a preset by its shipped name, from a YAML file, a URL or the hub, or makes one of plain steps.

    Args:
        preset: A name that ``available`` lists, a path, a URL, a place on the hub as
            `tuner.hub.FORM` writes it, ``plain:N`` for N plain steps of a model, or
            ``plain:N-SOLVER`` for N of another solver. An existing path comes first.
        model: The model of plain steps; other presets do not need it.
        size: Output (height, width) of plain steps in pixels; the model's by default.

    Raises:
        UserError: If there is no such preset, or if the file breaks a rule.
    """
    text = os.fspath(preset)
    if text.startswith(PLAIN):
        return _plain(text, model, size)
    if text in available():
        return _read(_FOLDER / f"{text}.yaml")
    if hub.is_url(text):
        return _from_url(text)
    path = Path(text)
    if os.path.exists(path):
        return _read(path)
    if (place := hub.place(text)) is not None:
        return _from_hub(place)
    if path.suffix in (".yaml", ".yml") or os.sep in text:
        raise UserError(
            f"Preset file {text!r} does not exist; give a file, a URL, {hub.FORM} of the hub, or one of: "
            f"{', '.join(available())}."
        )
    raise unknown_name("preset", text, available())


def plain_name(steps: int, solver: str | None = None) -> str:
    """Names plain steps as `plain_steps` reads them."""
    return f"{PLAIN}{steps}" + (f"-{solver}" if solver else "")


def plain_steps(text: str) -> tuple[int, str | None]:
    """Reads ``plain:N`` or ``plain:N-SOLVER``.

    Returns:
        The number of steps, and the solver; None for the model's own.

    Raises:
        UserError: If the number is missing, or if nothing has the solver's name.
    """
    steps, _, solver = text.removeprefix(PLAIN).partition("-")
    if not steps.isdecimal() or int(steps) < 1:
        raise UserError(f"Preset {text!r} names no number of plain steps; write {PLAIN}12 for twelve.")
    if solver:
        solvers.load(solver)
    return int(steps), solver or None


def _plain(text: str, model: Blueprint | None, size: tuple[int, int] | None) -> Preset:
    steps, solver = plain_steps(text)
    if model is None:
        raise UserError(f"Preset {text!r} is made of a model's own steps; say of which with --model.")
    height, width = model.check_size(size or model.size)
    return Preset(
        name=text,
        model=model.source if os.path.isdir(model.source) else model.name,
        source=f"{steps} steps of {solver or model.solver} at the model's own sigmas",
        height=height,
        width=width,
        schedule=model.plain(steps, (height, width), solver),
    )


def save(preset: Preset, path: str | os.PathLike[str]) -> Path:
    """Writes a preset as YAML that ``load`` reads back unchanged.

    Args:
        preset: What to write.
        path: The file; its folder is created.

    Raises:
        UserError: If the file cannot be written.
    """
    path = Path(path)
    write(path, "Preset", to_yaml(preset).encode())
    return path


def to_yaml(preset: Preset) -> str:
    """Writes a preset as YAML text in the order of its fields, without empty ones.

    The first line tells editors where the schema is.
    """
    data = preset.model_dump(mode="json", exclude_none=True)
    header = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
    return header + yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of a preset file, with which editors check and complete it.

    A stage has sigmas, or else steps with a strength and a shift.
    """
    whole = Preset.model_json_schema()
    stage = whole["$defs"]["Stage"]
    stage["properties"] |= {
        "steps": {"type": "integer", "minimum": 1},
        "strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1.0},
        "shift": {"type": "number", "exclusiveMinimum": 0, "default": 1.0},
    }
    stage["required"] = [name for name in stage["required"] if name != "sigmas"]
    stage["oneOf"] = [{"required": ["sigmas"]}, {"required": ["steps"]}]
    stage["dependentRequired"] = {"strength": ["steps"], "shift": ["steps"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _read(path: Path) -> Preset:
    return _with_lora_in(path.parent, _parsed(_text(path), str(path)))


def _from_url(url: str) -> Preset:
    preset = _parsed(hub.read_url(url, MOST_BYTES), url)
    if (lora := _lora_beside(preset)) is not None:
        raise UserError(
            f"Preset {url!r} needs the LoRA {lora!r} beside it, and a URL is one file; download both into one "
            "folder and give the preset's path, or `tuner push` them to the hub."
        )
    return preset


def _from_hub(place: hub.HubFile) -> Preset:
    path = hub.fetch(place)
    preset = _parsed(_text(path), str(place))
    if (lora := _lora_beside(preset)) is not None:
        hub.fetch(place.beside(lora, path))
    return _with_lora_in(path.parent, preset)


def _lora_beside(preset: Preset) -> str | None:
    """Returns the file of a LoRA that lies beside the preset's own, without its weight."""
    options = preset.model_options
    if options is None or options.lora is None or not options.lora.startswith("./"):
        return None
    return options.lora_and_weight()[0].removeprefix("./")


def _with_lora_in(folder: Path, preset: Preset) -> Preset:
    if preset.model_options is None:
        return preset
    return preset.model_copy(update={"model_options": preset.model_options.beside(folder)})


def _text(path: Path) -> str:
    return read_text(path, "Preset", MOST_BYTES, "give a YAML file")


def _parsed(text: str, shown: str) -> Preset:
    """Checks the text of a preset file, which messages call ``shown``."""
    try:
        data: Any = yaml.safe_load(text)
        return Preset.model_validate(data)
    except RecursionError:
        raise UserError(f"Preset {shown!r} is nested too deeply; write it as `tuner presets` shows.") from None
    except yaml.YAMLError as error:
        raise UserError(f"Preset {shown!r} is not valid YAML: {one_line(error)}.") from error
    except ValidationError as error:
        raise UserError(f"Preset {shown!r} breaks a rule: {first_problem(error)}") from error
    except ValueError as error:  # what YAML's own types refuse: an impossible date, an integer of 5000 digits
        raise UserError(f"Preset {shown!r} has a value that cannot be read: {one_line(error)}.") from error


def first_problem(error: ValidationError) -> str:
    """Describes the first broken rule in one line, with its place."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
