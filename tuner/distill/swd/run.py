"""A whole distillation: data, training, checkpoints, and the preset that uses the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tuner import presets
from tuner.distill.swd.settings import SwdSettings
from tuner.errors import UserError, unwritable
from tuner.flops import price
from tuner.models import ModelOptions, blueprint
from tuner.presets import Cost, Preset

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL.Image import Image

    from tuner.distill.swd.data import ImageFolder
    from tuner.distill.swd.trainer import Trainer
    from tuner.models import FlowModel
    from tuner.models._pipeline_model import PipelineModel

GENERATED = "generated"
LORA, PRESET = "pytorch_lora_weights.safetensors", "preset.yaml"
_SETTINGS, _CHECKPOINT, _DATA = "settings.json", "checkpoint.pt", "data"
_VALIDATION_SEED = 0
_LONGEST_WAIT = timedelta(days=1)  # of one process for another; torch's own is 10 minutes on GPUs
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


class Monitor(Protocol):
    """Receives the progress of a distillation, from the main process only."""

    def phase(self, name: str, done: int, total: int) -> None:
        """Takes where it is: images drawn while ``name`` is "drawing data", steps while it is "training"."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the mean of every loss term over the stages of a step, counted from 1."""

    def images(self, step: int, images: Sequence[Image], prompts: Sequence[str]) -> None:
        """Takes the student's images after a step, always of the same prompts and noise."""


def distill(
    settings: SwdSettings,
    data: Path | str,
    prompts: Sequence[str],
    validation_prompts: Sequence[str],
    monitor: Monitor,
    resume: bool = False,
    cpu: bool = False,
) -> Path:
    """Trains a student and writes its LoRA and a preset into ``settings.out``.

    Started under ``accelerate launch`` it trains on all processes, each of which draws its share of the data. With
    ``--mixed_precision bf16`` or ``fp16`` the teacher is loaded in that precision.

    Args:
        settings: What to train.
        data: Folder of images, or "generated" for one image of the teacher's baseline per prompt.
        prompts: What the teacher draws, where it does.
        validation_prompts: What the student draws at every checkpoint.
        monitor: Is told how it goes.
        resume: Continue the run in ``settings.out``.
        cpu: Train on the CPU even where there is a GPU.

    Returns:
        The preset's file.

    Raises:
        UserError: If the folder holds another run, the model cannot be distilled, or the data are unreadable or
            fewer than a batch.
    """
    from tuner.distill.swd.networks import distillable
    from tuner.distill.swd.trainer import Trainer

    accelerator = _accelerator(cpu)
    _claim(settings, resume, accelerator)
    dtype = _DTYPES.get(accelerator.mixed_precision)
    teacher = distillable(blueprint(settings.model).load(accelerator.device.type, dtype))
    images = _images(settings, data, prompts, teacher, monitor, accelerator)
    trainer = Trainer(settings, teacher, images, accelerator)
    run = _Run(trainer, validation_prompts, monitor, accelerator)
    run.restore()
    return run.finish()


def _accelerator(cpu: bool) -> Accelerator:
    """Joins the processes; they wait for each other longer than any of them draws its last images."""
    from accelerate import Accelerator, InitProcessGroupKwargs

    return Accelerator(cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)])


class _Run:
    """The steps of one run, with its checkpoints and logs."""

    def __init__(
        self, trainer: Trainer, validation_prompts: Sequence[str], monitor: Monitor, accelerator: Accelerator
    ):
        self._trainer = trainer
        self._settings = trainer.settings
        self._prompts = list(validation_prompts)
        self._monitor = monitor
        self._accelerator = accelerator

    def restore(self) -> None:
        """Continues from the checkpoint, if there is one."""
        import torch

        path = self._settings.out / _CHECKPOINT
        if path.is_file():
            state = torch.load(path, map_location=self._accelerator.device, weights_only=True)
            self._trainer.load_state(state)

    def finish(self) -> Path:
        """Trains to the last step."""
        total = self._settings.steps
        if self._accelerator.is_main_process:
            self._monitor.phase("training", self._trainer.step, total)
        while self._trainer.step < total:
            losses = self._trainer.train_step()
            step = self._trainer.step
            if self._accelerator.is_main_process:
                self._monitor.losses(step, losses)
                self._monitor.phase("training", step, total)
                if step % self._settings.save_every == 0 or step == total:
                    self._save()
                    self._monitor.images(step, self._draw(), self._prompts)
        if self._accelerator.is_main_process:
            _write_preset(self._trainer.student, self._settings)
        self._accelerator.wait_for_everyone()
        return self._settings.out / PRESET

    def _save(self) -> None:
        import torch

        path = self._settings.out / _CHECKPOINT
        try:
            torch.save(self._trainer.state(), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            _write_lora(self._trainer.student, self._settings.out)
        except OSError as error:
            raise unwritable("Checkpoint", path, error) from error

    def _draw(self) -> list[Image]:
        from tuner.generation import generate

        if not self._prompts:
            return []
        made = generate(self._trainer.student, self._prompts, self._settings.schedule, _VALIDATION_SEED)
        images: list[Image] = made.images
        return images


def _claim(settings: SwdSettings, resume: bool, accelerator: Accelerator) -> None:
    """Writes the settings into the run's folder, or checks that they match those in it."""
    path = settings.out / _SETTINGS
    text = settings.model_dump_json(indent=2, exclude={"out"}) + "\n"
    if path.is_file():
        if not resume:
            raise UserError(f"Folder {str(settings.out)!r} holds a run; add --resume, or give another --out.")
        if path.read_text() != text:
            raise UserError(
                f"The run in {str(settings.out)!r} was started with other settings ({path}); give the same ones, "
                "or another --out."
            )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not path.is_file():
        try:
            settings.out.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise unwritable("Settings", path, error) from error


def _images(
    settings: SwdSettings,
    data: Path | str,
    prompts: Sequence[str],
    teacher: FlowModel,
    monitor: Monitor,
    accelerator: Accelerator,
) -> ImageFolder:
    from tuner.distill.swd.data import ImageFolder, generate

    folder = settings.out / _DATA if data == GENERATED else Path(data)
    if data == GENERATED:

        def on_image(done: int, total: int) -> None:
            if accelerator.is_main_process:
                monitor.phase("drawing data", done, total)

        share = accelerator.process_index, accelerator.num_processes
        generate(teacher, prompts, folder, settings.seed, settings.batch, on_image, share)
    accelerator.wait_for_everyone()
    found = ImageFolder(folder)
    if len(found) < (needed := settings.batch * accelerator.num_processes):
        raise UserError(f"{len(found)} images are fewer than the {needed} of a batch; add some, or lower --batch.")
    return found


def _write_lora(student: PipelineModel, folder: Path) -> None:
    """Writes the LoRA in the format that ``load_lora_weights`` of the pipeline reads."""
    from peft import get_peft_model_state_dict

    from tuner.distill.swd.networks import ADAPTER, denoiser

    transformer = denoiser(student)
    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    student.pipe.save_lora_weights(
        folder,
        transformer_lora_layers={name: value.contiguous() for name, value in weights.items()},
        transformer_lora_adapter_metadata=transformer.peft_config[ADAPTER].to_dict(),
        weight_name=LORA,
    )


def _write_preset(student: FlowModel, settings: SwdSettings) -> None:
    known, teacher = student.blueprint, blueprint(settings.model)
    cost, baseline = price(settings.schedule, known), price(teacher.baseline(), teacher)
    preset = Preset(
        name=settings.out.resolve().name,
        model=settings.model,
        source="Scale-wise Distillation (SwD), arXiv 2503.16397, trained with `tuner distill swd`",
        notes=f"Losses: {', '.join(settings.losses)}; {settings.steps} steps of {settings.batch} images.",
        height=known.height,
        width=known.width,
        schedule=settings.schedule,
        model_options=ModelOptions(lora=f"./{LORA}", guidance=known.guidance),
        cost=Cost(tflops=cost.tflops, nfe=cost.nfe, speedup=baseline.tflops / cost.tflops),
    )
    presets.save(preset, settings.out / PRESET)
