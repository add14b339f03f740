"""The folder of a study, ``OUT/NAME/``.

==================  =====================================================================================
``settings.json``   the settings, everything that decides the result, and how the scores read
``prompts.json``    every prompt with its noise seed, search prompts first
``scores.jsonl``    every finished evaluation
``journal.log``     the Optuna study, unless ``--storage`` names another place
``images/HASH/``    the first scored images of a schedule
``result.json``     the outcome of a finished search
``preset.yaml``     the pick; ``preset`` with another ending is its export for ``--for``
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

from studies.plan.plan import versions
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
        """Direction in which each objective improves, by its plain name."""
        directions: dict[str, Direction] = self._about["directions"]
        return directions

    @property
    def baseline(self) -> Schedule:
        """The baseline schedule that the study ran."""
        return Schedule.model_validate(self._about["baseline"])

    @property
    def id(self) -> str:
        """A unique id, even among studies of one name."""
        return str(self._about["id"])

    @property
    def created(self) -> str:
        """When the study was started, ISO 8601, UTC."""
        return str(self._about["created"])

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that decide the numbers, when the study was started."""
        found: dict[str, str] = self._about.get("versions") or versions()  # studies of before have none
        return found

    @property
    def device(self) -> str | None:
        """Type of the device that the study was started for, ``cpu`` or ``cuda``; None if it is not known."""
        return self._about.get("device")

    @property
    def dtype(self) -> str | None:
        """Precision of the weights; None if it is not known."""
        return self._about.get("dtype")

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
        """Every prompt with its noise seed: search prompts first, then held-out ones."""
        rows = json.loads((self.path / "prompts.json").read_text(encoding="utf-8"))
        return [(row["prompt"], row["seed"]) for row in rows]

    @property
    def state(self) -> State:
        """Whether the search has finished."""
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


def start_study(folder: StudyFolder, plan: Plan, resume: bool, device: str = "cpu") -> None:
    """Writes the files of a new study, or checks that an earlier study can be resumed.

    A resumed study gets missing ``prompts.json`` and ``settings.json`` written again.

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
        "versions": versions(),
        "device": device,
        "dtype": plan.settings.options.dtype or ("bfloat16" if device == "cuda" else "float32"),
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
    """Lists the studies in a folder by name; empty if the folder does not exist."""
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
