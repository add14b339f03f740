"""What workers on a cluster need from this machine: what is small travels with the job, the rest must be there."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import objectives
from objectives.base import split_dtype
from tuner import models
from tuner.errors import UserError
from tuner.text_files import MEBIBYTE

if TYPE_CHECKING:
    from studies.work.own_options import Contender
    from studies.work.task import Task
    from tuner.models import ModelOptions

MOST_SENT = 64 * MEBIBYTE
"""Files and folders up to this many bytes, and modules up to this many together, are sent to the workers."""

_OURS = ("tuner", "studies", "objectives", "search_spaces")
_INSTALLED = ("site-packages", "dist-packages")

T = TypeVar("T", "Task", "Contender")


@dataclass(frozen=True)
class Cargo:
    """What is sent to the workers of a cluster, and what every node must have. A worker runs in a folder of it.

    Attributes:
        places: Where workers find the files and folders that a user named, by the user's text: a path in the
            folder that is sent, or an absolute path.
        sent: What goes into that folder: paths on this machine by paths in it.
        needed: Absolute paths of what is too large to be sent.
        imported: Modules that workers import.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, Path] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()

    def pack(self, folder: Path) -> None:
        """Copies what is sent into a folder."""
        (folder / "sent_by_tuner").touch()  # Ray refuses a folder without files
        for name, source in self.sent.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)

    def model(self, name: str) -> str:
        """Returns the model as workers find it."""
        return self.places.get(name, name)

    def objective(self, spec: str) -> str:
        """Returns an objective's ``name:weights`` with weights that workers find."""
        source = _weights_of(spec)
        return spec if source not in self.places else spec.replace(source, self.places[source], 1)

    def options(self, options: ModelOptions) -> ModelOptions:
        """Returns options with a LoRA and a transformer that workers find."""
        found = {}
        if options.lora is not None:
            source, _ = options.lora_and_weight()
            found["lora"] = self.places.get(source, source) + options.lora[len(source) :]
        if options.transformer is not None:
            found["transformer"] = self.places.get(options.transformer, options.transformer)
        return options.model_copy(update=found)

    def own(self, thing: T) -> T:
        """Returns a task or a contender whose own LoRA workers find."""
        if thing.own is None:
            return thing
        return replace(thing, own=replace(thing.own, options=self.options(thing.own.options)))


def cargo_of(model: str, specs: Sequence[str], options: Iterable[ModelOptions]) -> Cargo:
    """Collects what workers on other machines need of this one.

    Args:
        model: Short name, folder or hub id.
        specs: ``name:weights`` of each objective.
        options: Of the model and of all schedules that have their own.

    Raises:
        UserError: If a user's own objective lies in modules that are too large to be sent.
    """
    named = [] if model in models.available() else [model]
    named += [source for source in map(_weights_of, specs) if source]
    for one in options:
        named += [one.lora_and_weight()[0]] if one.lora is not None else []
        named += [one.transformer] if one.transformer is not None else []
    places, sent, needed = dict[str, str](), dict[str, Path](), list[str]()
    for text in dict.fromkeys(named):
        path = Path(text).expanduser().absolute()
        if not path.exists():
            continue  # on a hub
        if _bytes(path) > MOST_SENT:
            needed.append(str(path))
            places[text] = str(path)
        else:
            places[text] = f"./files/{len(sent)}/{path.name}"
            sent[places[text]] = path
    custom = [objectives.parse(spec)[0].partition(":")[0] for spec in specs if ":" in objectives.parse(spec)[0]]
    modules = _own_modules() if custom else {}
    if (size := sum(map(_bytes, modules.values()))) > MOST_SENT:
        raise UserError(
            f"Modules {', '.join(modules)} in the current folder have {size // MEBIBYTE} MiB, and at most "
            f"{MOST_SENT // MEBIBYTE} are sent to a cluster; install them on every node, and run the command from "
            "another folder."
        )
    return Cargo(places, sent | modules, tuple(needed), tuple(custom))


def _weights_of(spec: str) -> str:
    """Returns the source of an objective's weights, or nothing."""
    name, weights = objectives.parse(spec)
    embedded = weights is None or weights == "tiny"
    return "" if ":" in name or embedded else split_dtype(weights, "")[0]


def _own_modules() -> dict[str, Path]:
    """Finds the modules and packages of the current folder that were imported, by their file names."""
    here = Path.cwd()
    found = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/").absolute()
        top = name.partition(".")[0]
        if top in _OURS or not path.is_relative_to(here) or not {*_INSTALLED}.isdisjoint(path.parts):
            continue
        for file in (here / f"{top}.py", here / top):
            if file.exists():
                found[file.name] = file
    return found


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def missing(cargo: Cargo, version: str) -> str | None:
    """Says why workers cannot run on the machine that this runs on, in a worker's folder.

    Args:
        cargo: What the driver sent, and what it expects here.
        version: The driver's version of tuner.

    Returns:
        The first reason, with its remedy; None if they can.
    """
    import tuner

    if tuner.__version__ != version:
        return f"it has tuner {tuner.__version__}, and the driver has {version}; install one version everywhere"
    for path in cargo.needed:
        if not Path(path).exists():
            return (
                f"{path!r} is not there, and more than {MOST_SENT // MEBIBYTE} MiB are not sent; copy it to the "
                "same path on every node, or name a path on a shared disk"
            )
    for module in cargo.imported:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a user's module raises when it is imported
            return f"module {module!r} cannot be imported ({type(error).__name__}: {error}); install what it needs"
    return None
