"""Trains students of scale-wise distillation, each for the same time, and goes on where it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tuner.errors import UserError, unwritable

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuner.distill.swd import SwdSettings

TIMED_STEPS = 2
"""Training steps that are timed, after one that warms up, to learn how many take the same time."""
SAVE_EVERY = 20
_TIMING = "timing.json"

OnProgress: TypeAlias = "Callable[[str, int, int | None], None]"
"""Called with what is being done, and how many units of it are finished, and of how many."""


@dataclass(frozen=True)
class Timing:
    """How long a student is trained.

    Attributes:
        seconds_per_step: Of the fastest timed step: the processor's on a CPU, the clock's on a GPU.
        steps: Training steps.
        first: Training steps of the first student, which take the same time.
    """

    seconds_per_step: float
    steps: int
    first: int


@dataclass(frozen=True)
class Student:
    """A trained student: the file of its preset, and how long it was trained."""

    preset: Path
    timing: Timing


def train_all(
    students: Mapping[str, SwdSettings], data: Path, steps: int, out: Path, cpu: bool, on_progress: OnProgress
) -> dict[str, Student]:
    """Trains every student for the time that the first one takes, and skips those that are finished.

    Args:
        students: Settings by name; their folders and numbers of steps are replaced.
        data: Folder of images with captions.
        steps: Training steps of the first student; the others get as many as take the same time.
        out: Folder that holds a folder for each student.
        cpu: Train on the CPU even where there is a GPU.
        on_progress: Called after every training step.

    Raises:
        UserError: If a student there was trained with other settings or for another time.
    """
    from tuner.distill.swd import distill

    trained = {}
    for name, settings in students.items():
        folder = out / name.lower().replace(",", "").replace(" ", "-")
        first = next(iter(students.values()))
        timing = _timing(first, settings, data, steps, folder, cpu)
        wanted = settings.model_copy(
            update={"out": folder / "run", "steps": timing.steps, "save_every": SAVE_EVERY}
        )
        preset = distill(wanted, data, (), (), _Monitor(name, on_progress), resume=True, cpu=cpu)
        trained[name] = Student(preset, timing)
    return trained


def _timing(first: SwdSettings, settings: SwdSettings, data: Path, steps: int, folder: Path, cpu: bool) -> Timing:
    """Reads how many steps a student is trained, or times some and writes it down."""
    path = folder / _TIMING
    if path.is_file():
        timing = Timing(**json.loads(path.read_text()))
        if timing.first != steps:
            raise UserError(
                f"The student in {str(folder)!r} is trained for the time of {timing.first} steps, not {steps}; "
                f"give --steps {timing.first}, or another --out."
            )
        return timing
    timed = seconds_per_step([first] if settings == first else [first, settings], data, cpu)
    timing = Timing(timed[-1], max(1, round(steps * timed[0] / timed[-1])), steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(timing)))
    except OSError as error:
        raise unwritable("Timing", path, error) from error
    return timing


def seconds_per_step(settings: Sequence[SwdSettings], data: Path, cpu: bool) -> list[float]:
    """Times training steps of several students in turn, so that other work on the machine slows them alike.

    Returns:
        Of each the fastest step's seconds; what is trained is thrown away.
    """
    from accelerate import Accelerator

    from tuner.distill.swd.data import ImageFolder
    from tuner.distill.swd.networks import distillable
    from tuner.distill.swd.trainer import Trainer
    from tuner.models import blueprint

    accelerator = Accelerator(cpu=cpu)
    clock = time.process_time if accelerator.device.type == "cpu" else time.perf_counter
    teacher = distillable(blueprint(settings[0].model).load(accelerator.device.type))
    trainers = [Trainer(one, teacher, ImageFolder(data), accelerator) for one in settings]
    fastest = [float("inf")] * len(trainers)
    for step in range(1 + TIMED_STEPS):
        for number, trainer in enumerate(trainers):
            start = clock()
            trainer.train_step()  # returns numbers, so it has waited for a GPU
            if step > 0:
                fastest[number] = min(fastest[number], clock() - start)
    return fastest


class _Monitor:
    """Tells how far the training of one student is."""

    def __init__(self, name: str, on_progress: OnProgress):
        self._name = name
        self._on_progress = on_progress

    def phase(self, name: str, done: int, total: int) -> None:
        """See `tuner.distill.swd.Monitor`."""
        self._on_progress(f"{name}: {self._name}", done, total)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Losses are not shown."""

    def images(self, step: int, images: Sequence[Image], prompts: Sequence[str]) -> None:
        """There are no validation images."""
