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

TIMED_STEPS = 4
"""Training steps that are timed before a student's training, to learn how many fit; one more warms up."""
SAVE_EVERY = 20
_TIMING = "timing.json"

OnProgress: TypeAlias = "Callable[[str, int, int | None], None]"
"""Called with what is being done, and how many units of it are finished, and of how many."""


@dataclass(frozen=True)
class Timing:
    """How long a student is trained.

    Attributes:
        minutes: What it was given.
        seconds_per_step: What a training step took: of the processor's time on a CPU, of the clock's on a GPU.
        steps: How many training steps fit.
    """

    minutes: float
    seconds_per_step: float
    steps: int


@dataclass(frozen=True)
class Student:
    """A trained student: the file of its preset, and how long it was trained."""

    preset: Path
    timing: Timing


def train_all(
    students: Mapping[str, SwdSettings],
    data: Path,
    minutes: float,
    out: Path,
    cpu: bool,
    on_progress: OnProgress,
) -> dict[str, Student]:
    """Trains every student for the same time, and skips those that are finished.

    Args:
        students: Settings by name; their folders and numbers of steps are replaced.
        data: Folder of images with captions.
        minutes: Training time of each: of the processor on a CPU, since others may use it as well.
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
        timing = _timing(settings, data, minutes, folder, cpu)
        wanted = settings.model_copy(
            update={"out": folder / "run", "steps": timing.steps, "save_every": SAVE_EVERY}
        )
        monitor = _Monitor(name, on_progress)
        preset = distill(wanted, data, (), (), monitor, resume=True, cpu=cpu)
        trained[name] = Student(preset, timing)
    return trained


def _timing(settings: SwdSettings, data: Path, minutes: float, folder: Path, cpu: bool) -> Timing:
    """Reads how many steps a student is trained, or times some and writes it down."""
    path = folder / _TIMING
    if path.is_file():
        timing = Timing(**json.loads(path.read_text()))
        if timing.minutes != minutes:
            raise UserError(
                f"The student in {str(folder)!r} is trained for {timing.minutes:g} minutes, not {minutes:g}; give "
                f"--minutes {timing.minutes:g}, or another --out."
            )
        return timing
    seconds = seconds_per_step(settings, data, cpu)
    timing = Timing(minutes, seconds, max(1, round(60 * minutes / seconds)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(timing)))
    except OSError as error:
        raise unwritable("Timing", path, error) from error
    return timing


def seconds_per_step(settings: SwdSettings, data: Path, cpu: bool) -> float:
    """Times a few training steps, whose results are thrown away."""
    from accelerate import Accelerator

    from tuner.distill.swd.data import ImageFolder
    from tuner.distill.swd.networks import distillable
    from tuner.distill.swd.trainer import Trainer
    from tuner.models import blueprint

    accelerator = Accelerator(cpu=cpu)
    clock = time.process_time if accelerator.device.type == "cpu" else time.perf_counter
    teacher = distillable(blueprint(settings.model).load(accelerator.device.type))
    trainer = Trainer(settings, teacher, ImageFolder(data), accelerator)
    trainer.train_step()
    start = clock()
    for _ in range(TIMED_STEPS):
        trainer.train_step()  # returns numbers, so it has waited for a GPU
    return (clock() - start) / TIMED_STEPS


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
