"""The folder of a study, ``OUT/NAME/``.

===================  =====================================================================================
``settings.json``    the settings, everything that decides the result, and how the scores read
``prompts.json``     every prompt with its noise seed, search prompts first
``scores.jsonl``     every finished evaluation
``proposals.jsonl``  every proposal; without it, a resumed study makes them again
``journal.log``      the Optuna study, unless ``--storage`` names another place
``images/HASH/``     the first scored images of a schedule
``result.json``      the outcome of a finished search
``preset.yaml``      the pick; ``preset`` with another ending is its export for ``--for``
===================  =====================================================================================
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

from objectives.base import Direction
from studies.plan.plan import versions
from studies.plan.settings import SearchSettings
from studies.plan.words import check_new
from studies.records.folder import Folder
from studies.records.results import StudyResult
from studies.records.score_log import parse_line, whole_lines
from tuner.errors import UserError, masked, one_line, unknown_name
from tuner.presets import first_problem
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from studies.plan.plan import Plan

T = TypeVar("T")

State = Literal["finished", "unfinished", "broken"]


class _About(BaseModel):
    """What ``settings.json`` must hold."""

    id: str
    created: str
    settings: SearchSettings
    identity: dict[str, Any]
    directions: dict[str, Direction] = Field(min_length=1)
    baseline: Schedule
    versions: dict[str, str] = {}
    device: str | None = None
    dtype: str | None = None

    @field_validator("identity")
    @classmethod
    def _check_identity(cls, identity: dict[str, Any]) -> dict[str, Any]:
        _Identity.model_validate(identity)
        return identity


class _Identity(BaseModel):
    """The part of an identity that is read, and not only compared."""

    weights: str
    seed: int
    objectives: list[str]
    prompts: str
    rungs: list[int] = Field(min_length=1)
    size: tuple[int, int]
    learnt: list[tuple[str, str]] = []
    options: dict[str, Any] = {}


class _Prompt(BaseModel):
    prompt: str
    seed: int


_PROMPTS = TypeAdapter(list[_Prompt])


@dataclass(frozen=True)
class StudyFolder(Folder):
    """A study on disk; its name is the folder's. What it reads of a broken file is a `UserError`."""

    @cached_property
    def _about(self) -> _About:
        return self._parsed("settings.json", _About.model_validate_json)

    def _parsed(self, name: str, parse: Callable[[bytes], T]) -> T:
        """Reads a file of the study.

        Raises:
            UserError: If the file is missing or broken.
        """
        try:
            return parse((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else one_line(error)
            raise UserError(
                f"Study {self.name!r} in {str(self.path.parent)!r} has a broken {name} ({problem[:300]}); run its "
                "search again with --resume, which sets the file aside and keeps all scores."
            ) from error

    @property
    def settings(self) -> SearchSettings:
        """The settings that the study was started with."""
        return self._about.settings

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result; see `Plan.identity`."""
        return self._about.identity

    @property
    def directions(self) -> dict[str, Direction]:
        """Direction in which each objective improves, by its plain name."""
        return self._about.directions

    @property
    def baseline(self) -> Schedule:
        """The baseline schedule that the study ran."""
        return self._about.baseline

    @property
    def id(self) -> str:
        """A unique id, even among studies of one name."""
        return self._about.id

    @property
    def created(self) -> str:
        """When the study was started, ISO 8601, UTC."""
        return self._about.created

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that decide the numbers, when the study was started."""
        return self._about.versions or versions()  # earlier studies have none

    @property
    def device(self) -> str | None:
        """Type of the workers' device, ``cpu`` or ``cuda``; None if it is not known."""
        return self._ran_on[0]

    @property
    def dtype(self) -> str | None:
        """Precision of the weights; None if it is not known."""
        return self._ran_on[1]

    @cached_property
    def _ran_on(self) -> tuple[str | None, str | None]:
        """Device and precision as the workers wrote them, or else as the study was started for."""
        for line in whole_lines(self.scores):
            if (parsed := parse_line(line)) is not None and parsed.get("runtime"):
                device, dtype = parsed["runtime"].split()
                return device, dtype
        return self._about.device, self._about.dtype

    @property
    def journal(self) -> Path:
        """The file of the Optuna study."""
        return self.path / "journal.log"

    @property
    def proposals(self) -> Path:
        """The file of proposals."""
        return self.path / "proposals.jsonl"

    @property
    def preset(self) -> Path:
        """The exported pick."""
        return self.path / "preset.yaml"

    @property
    def prompts(self) -> list[tuple[str, int]]:
        """Every prompt with its noise seed: search prompts first, then held-out ones."""
        return [(row.prompt, row.seed) for row in self._parsed("prompts.json", _PROMPTS.validate_json)]

    @property
    def state(self) -> State:
        """Whether the search has finished, and whether its settings and its result can be read."""
        try:
            self.check()
            return "finished" if self._result_file.exists() and self._result else "unfinished"
        except UserError:
            return "broken"

    def check(self) -> None:
        """Reads the settings.

        Raises:
            UserError: If they are missing or broken.
        """
        _ = self._about

    def result(self) -> StudyResult:
        """Reads the outcome.

        Raises:
            UserError: If the search is not over.
        """
        if not self._result_file.exists():
            raise UserError(
                f"Study {self.name!r} in {str(self.path.parent)!r} is not finished; continue it with `--resume`."
            )
        return self._result

    @cached_property
    def _result(self) -> StudyResult:
        return self._parsed("result.json", StudyResult.model_validate_json)

    def write_result(self, result: StudyResult) -> None:
        """Writes the outcome in one piece."""
        self.write("result.json", result.model_dump_json(indent=2) + "\n")

    def keep_images_of(self, schedule_hashes: set[str]) -> None:
        """Removes the images of all other schedules; files of other kinds, and their folders, stay."""
        for folder in (self.path / "images").glob("*"):
            if folder.name not in schedule_hashes and folder.is_dir() and not folder.is_symlink():
                for image in self.images(folder.name):
                    image.unlink()
                with contextlib.suppress(OSError):  # not empty: something of the user's is in it
                    folder.rmdir()

    @property
    def _result_file(self) -> Path:
        return self.path / "result.json"


def start_study(folder: StudyFolder, plan: Plan, resume: bool, device: str = "cpu") -> None:
    """Writes the files of a new study, or checks that an earlier study can be resumed.

    A resumed study gets missing ``prompts.json`` and ``settings.json`` written again. Broken ones are set aside
    first, with a warning: scores are kept by all that made them, so none is used for another study.

    Args:
        folder: The study's folder; the caller holds its lock.
        plan: The checked search.
        resume: Whether to continue an existing study; if there is none of that name, a new one starts.
        device: Type of the workers' device, ``cpu`` or ``cuda``.

    Raises:
        UserError: If the study exists and ``resume`` is off, or if its settings would give another result.
    """
    settings = plan.settings
    if (folder.path / "settings.json").exists():
        if not resume:
            check_new(settings.out, settings.name)
        if not _set_aside_if_broken(folder, "settings.json", lambda: folder.identity):
            _check_same(folder, plan.identity)
            prompts = folder.path / "prompts.json"
            if not prompts.exists() or _set_aside_if_broken(folder, prompts.name, lambda: folder.prompts):
                _write_prompts(folder, plan)
            _set_aside_if_broken(folder, "result.json", lambda: folder.state == "unfinished" or folder.result())
            return
    about = {
        "id": uuid.uuid4().hex,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": _without_passwords(settings),
        "identity": plan.identity,
        "directions": dict(plan.directions),
        "baseline": plan.baseline.model_dump(mode="json"),
        "versions": versions(),
        **dict(zip(("device", "dtype"), settings.options.runtime(device).split(), strict=True)),
    }
    _write_prompts(folder, plan)
    folder.write("settings.json", json.dumps(about, indent=2) + "\n")


def as_begun(settings: SearchSettings) -> SearchSettings:
    """Returns settings with which the study of their name goes on decoding in tiles, or whole, as it began."""
    if settings.options.tiling is None:
        with contextlib.suppress(UserError):
            begun = StudyFolder(Path(settings.out) / settings.name).identity.get("options", {})
            options = settings.options.model_copy(update={"tiling": bool(begun.get("tiling"))})
            return settings.model_copy(update={"options": options})
    return settings


def _set_aside_if_broken(folder: StudyFolder, name: str, read: Callable[[], object]) -> bool:
    """Sets a file aside if reading it fails; returns whether it did."""
    try:
        read()
    except UserError as error:
        folder.set_aside(folder.path / name, one_line(error))
        return True
    return False


def _without_passwords(settings: SearchSettings) -> dict[str, Any]:
    values: dict[str, Any] = settings.model_dump(mode="json")
    return {name: masked(value) if isinstance(value, str) else value for name, value in values.items()}


def _write_prompts(folder: StudyFolder, plan: Plan) -> None:
    prompts = [
        {"prompt": prompt, "seed": plan.image_seeds + index, "set": kind}
        for index, (prompt, kind) in enumerate(
            [(prompt, "search") for prompt in plan.prompts.search]
            + [(prompt, "held-out") for prompt in plan.prompts.held_out]
        )
    ]
    folder.write("prompts.json", json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")


def open_study(out: str, name: str) -> StudyFolder:
    """Finds a study.

    Args:
        out: Folder that holds the studies.
        name: The study.

    Raises:
        UserError: If there is none of that name, or if its settings cannot be read.
    """
    studies = list_studies(out)
    for study in studies:
        if study.name == name:
            study.check()  # before anything is made of it
            return study
    if not studies:
        raise UserError(f"There are no studies in {out!r}; start one with `tuner search`, or give --out.")
    raise unknown_name("study", name, [study.name for study in studies])


def list_studies(out: str) -> list[StudyFolder]:
    """Lists the studies in a folder by name, broken ones, too; empty if the folder does not exist."""
    return [StudyFolder(path.parent) for path in sorted(Path(out).glob("*/settings.json"))]


def _check_same(folder: StudyFolder, identity: dict[str, Any]) -> None:
    """Refuses settings, or a version of tuner, that would change the result.

    Raises:
        UserError: If anything that decides the result differs.
    """
    for name in {**folder.identity, **identity}:
        before, now = folder.identity.get(name), identity.get(name)
        if now != before:
            raise UserError(
                f"Study {folder.name!r} was started with another `{name}` ({before}, now {now}), which would "
                "change its result; resume it with the same, or start another one with --study."
            )
