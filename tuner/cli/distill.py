"""``tuner distill``: trains a LoRA that needs fewer steps than the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._progress import ProgressDisplay
from tuner.cli._training import list_of, settings_of, training_options

if TYPE_CHECKING:
    from PIL.Image import Image

    from studies.report.mlflow_training import TrainingLog
    from tuner.distill.swd import SwdSettings

_VALIDATION_PROMPTS = 8
_SHOW_EVERY = 10
_EXAMPLES = """\b
Examples:
  tuner distill swd --model tiny --scales 0.5,0.5,0.75,1 \\
      --sigmas 1,0.9,0.75,0.55,0 --data generated --steps 200 --lora-rank 8 \\
      --lr 1e-3 --loss mmd --out runs/swd-tiny
  tuner sample runs/swd-tiny/preset.yaml "red ring on plain gray" -o ring.png
  accelerate launch --num_processes 8 .venv/bin/tuner distill swd \\
      --model flux --scales 0.5,0.625,0.75,1 \\
      --sigmas 1,0.8956,0.7363,0.6007,0 --data ./images --steps 3000 \\
      --lr 5e-6 --critic-lr 5e-6 --gradient-checkpointing --out runs/swd-flux

A data folder holds images and a metadata.jsonl of {"file_name": ..., "text": ...} lines.
"""


@click.group(help="Trains a LoRA that makes a model need fewer or smaller steps.\n\n" + _EXAMPLES)
def command() -> None:
    """The group of methods; its help is in the decorator."""


@command.command(help="Scale-wise distillation (SwD, arXiv 2503.16397): a step per scale.\n\n" + _EXAMPLES)
@click.option("--model", required=True, shell_complete=complete.models, help="Name, id or folder of the teacher.")
@click.option("--scales", required=True, callback=list_of(float), help="Scale of each step, the last one 1.")
@click.option("--sigmas", required=True, callback=list_of(float), help="Noise level of each step, then 0.")
@click.option("--data", required=True, help="Folder of images, or `generated`: the teacher draws them.")
@click.option("--prompts", metavar="FILE", help="What the teacher draws; half is for validation.")
@click.option("--images", type=click.IntRange(1), help="Images that the teacher draws; by default one per prompt.")
@click.option("--steps", required=True, type=int, help="Optimiser steps of the student.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--batch", default=8, show_default=True, help="Images per process and step.")
@training_options
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, batches and noise.")
@click.option("--save-every", default=250, show_default=True, help="Steps between checkpoints.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--cpu", is_flag=True, help="Train on the CPU even where there is a GPU.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server; by default a database beside --out.")
def swd(
    data: str,
    prompts: str | None,
    images: int | None,
    resume: bool,
    cpu: bool,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Trains with a progress bar on stderr, and prints the preset's path on stdout."""
    from studies.plan.prompts import load_prompts
    from tuner.distill.swd import distill
    from tuner.models import blueprint

    settings = settings_of(options)
    sets = load_prompts(prompts, blueprint(settings.model))
    wanted = [sets.search[number % len(sets.search)] for number in range(images or len(sets.search))]
    with _Monitor(settings, tracking_uri) as monitor:
        validation = sets.held_out[:_VALIDATION_PROMPTS]
        preset = distill(settings, data, wanted, validation, monitor, resume=resume, cpu=cpu)
    if monitor.used:
        click.echo(str(preset))


class _Monitor(ProgressDisplay):
    """Shows progress on stderr and sends losses and images to MLflow; the training's monitor."""

    def __init__(self, settings: SwdSettings, tracking_uri: str | None):
        super().__init__(every=_SHOW_EVERY)
        self._settings = settings
        self._tracking_uri = tracking_uri
        self._log: TrainingLog | None = None
        self._details = ""
        self._opened = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._logged(lambda log: log.close(finished=error is None))
        if isinstance(error, KeyboardInterrupt):
            click.echo(f"the last checkpoint is in {self._settings.out}; continue with --resume", err=True)

    def phase(self, name: str, done: int, total: int) -> None:
        """Shows where the training is, with the latest losses."""
        self.show(name, done, total, self._details)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Shows and logs the losses of a step."""
        self._details = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if not self._opened:
            self._open_log()
        self._logged(lambda log: log.losses(step, values))

    def images(self, step: int, images: Sequence[Image], prompts: Sequence[str]) -> None:
        """Logs the student's validation images."""
        self._logged(lambda log: log.images(step, images))

    def _open_log(self) -> None:
        from studies.report.mlflow_study import TrackingError
        from studies.report.mlflow_training import TrainingLog

        self._opened = True
        try:
            params = self._settings.model_dump(mode="json")
            self._log = TrainingLog(self._settings.out, params, self._tracking_uri)
        except TrackingError as error:
            click.echo(f"warning: not logged to MLflow ({error})", err=True)

    def _logged(self, call: Callable[[TrainingLog], None]) -> None:
        from studies.report.mlflow_study import TrackingError

        if self._log is None:
            return
        try:
            call(self._log)
        except TrackingError as error:
            self._log = None
            click.echo(f"warning: no longer logged to MLflow ({error})", err=True)
