"""The folder of a study, ``OUT/NAME/``: what it was asked, what it has found, and who works on it.

==================  =====================================================================================
``settings.json``   the settings, everything that decides the result, and how the scores read
``prompts.json``    every prompt with its noise seed, search prompts first
``scores.jsonl``    every finished evaluation
``journal.log``     the Optuna study, unless ``--storage`` names another place
``images/HASH/``    the first images of a schedule, as they were scored
``result.json``     the outcome, when the search is over
``preset.yaml``     the pick
==================  =====================================================================================
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studies.plan.settings import SearchSettings
from studies.records.folder import Folder
from studies.records.results import StudyResult
from tuner.errors import UserError, masked, unknown_name
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from objectives.base import Direction
    from studies.plan.plan import Plan

State = Literal["finished", "unfinished"]


@dataclass(frozen=True)
class StudyFolder(Folder):
    """A study on disk; its name is the folder's."""

    @cached_property
    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = json.loads((self.path / "settings.json").read_text(encoding="utf-8"))
        return about

    @property
    def settings(self) -> SearchSettings:
        """The settings that the study was started with."""
        return SearchSettings.model_validate(self._about["settings"])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result; see `Plan.identity`."""
        identity: dict[str, Any] = self._about["identity"]
        return identity

    @property
    def directions(self) -> dict[str, Direction]:
        """Which way each objective improves, by its plain name."""
        directions: dict[str, Direction] = self._about["directions"]
        return directions

    @property
    def baseline(self) -> Schedule:
        """The model's own default sampler, as the study ran it."""
        return Schedule.model_validate(self._about["baseline"])

    @property
    def id(self) -> str:
        """Unlike that of any other study, even one of the same name."""
        return str(self._about["id"])

    @property
    def journal(self) -> Path:
        """The file of the Optuna study."""
        return self.path / "journal.log"

    @property
    def preset(self) -> Path:
        """The exported pick."""
        return self.path / "preset.yaml"

    @property
    def prompts(self) -> list[tuple[str, int]]:
        """Every prompt with its noise seed: those of the search first, then those that it never saw."""
        rows = json.loads((self.path / "prompts.json").read_text(encoding="utf-8"))
        return [(row["prompt"], row["seed"]) for row in rows]

    @property
    def state(self) -> State:
        """Whether the search has come to its end."""
        return "finished" if self._result_file.is_file() else "unfinished"

    def result(self) -> StudyResult:
        """Reads the outcome.

        Raises:
            UserError: If the search is not over.
        """
        if self.state == "unfinished":
            raise UserError(
                f"Study {self.name!r} in {str(self.path.parent)!r} is not finished; continue it with `--resume`."
            )
        return StudyResult.model_validate_json(self._result_file.read_text(encoding="utf-8"))

    def write_result(self, result: StudyResult) -> None:
        """Writes the outcome in one piece."""
        self.write("result.json", result.model_dump_json(indent=2) + "\n")

    def keep_images_of(self, schedule_hashes: set[str]) -> None:
        """Removes the images of all other schedules."""
        for folder in (self.path / "images").glob("*"):
            if folder.name not in schedule_hashes:
                for image in folder.glob("*.png"):
                    image.unlink()
                folder.rmdir()

    @property
    def _result_file(self) -> Path:
        return self.path / "result.json"


def start_study(folder: StudyFolder, plan: Plan, resume: bool) -> None:
    """Writes what a new study starts from, or checks that an earlier one can be resumed.

    A resumed study gets ``prompts.json`` and ``settings.json`` again where they are missing.

    Args:
        folder: The study's folder; the caller holds its lock.
        plan: The checked search.
        resume: Whether to continue a study that is there; without one of that name, a new one starts.

    Raises:
        UserError: If the study exists and is not to be resumed, if it was started with settings that give
            another result.
    """
    settings = plan.settings
    if (folder.path / "settings.json").exists():
        if not resume:
            raise UserError(
                f"Study {settings.name!r} already exists in {settings.out!r}; continue it with --resume, or "
                "choose another name with --study."
            )
        _check_same(folder, plan.identity)
        if not (folder.path / "prompts.json").exists():
            _write_prompts(folder, plan)
        return
    about = {
        "id": uuid.uuid4().hex,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": _without_passwords(settings),
        "identity": plan.identity,
        "directions": dict(plan.directions),
        "baseline": plan.baseline.model_dump(mode="json"),
    }
    _write_prompts(folder, plan)
    folder.write("settings.json", json.dumps(about, indent=2) + "\n")


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
        UserError: If there is none of that name.
    """
    studies = list_studies(out)
    for study in studies:
        if study.name == name:
            return study
    if not studies:
        raise UserError(f"There are no studies in {out!r}; start one with `tuner search`, or give --out.")
    raise unknown_name("study", name, [study.name for study in studies])


def list_studies(out: str) -> list[StudyFolder]:
    """Lists the studies in a folder by name; none if there is no such folder."""
    return [StudyFolder(path.parent) for path in sorted(Path(out).glob("*/settings.json"))]


def _check_same(folder: StudyFolder, identity: dict[str, Any]) -> None:
    """Refuses settings, or a version of tuner, that would give another result.

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
