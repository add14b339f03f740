"""What a user decides about an evaluation of presets."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from studies.plan.settings import DEFAULT_OBJECTIVES
from tuner.models import ModelOptions


class EvalSettings(BaseModel):
    """All options of an evaluation. ``studies.evaluate.plan.make_eval_plan`` checks them.

    Attributes:
        model: Short name, folder or hub id.
        presets: Shipped names, YAML files, or ``plain:N`` for N plain steps.
        baseline: What they are compared with, likewise; None for the model's own default sampler.
        prompts: File of prompts; None for the shipped set that suits the model.
        all_prompts: Whether the prompts that ``tuner search`` would search on are scored, too, and not only those
            that it holds out.
        limit: At most this many prompts; None for all.
        until_decided: Whether a preset is drawn only until it is proven as good as the baseline, or worse, by the
            margin; see `studies.judge.sequential`.
        seeds: Noise seeds of each prompt.
        seed: Decides which noise; another one gives an independent evaluation.
        options: Guidance, LoRA, precision and placement of the model, for all presets that have none of their own.
        objectives: ``name`` or ``name:weights``; a name alone takes the weights that suit the model.
        margin: The largest loss that counts as none, e.g. ``1%``; see `parse_margins`.
        size: Output (height, width) in pixels; by default that of the presets made for this model, the baseline's
            included, or the model's.
        chunk: Images per unit of work, drawn as one batch; None for 8, less for large images and videos.
        out: Folder of the evaluation; None for one under ``runs`` that is named after what is evaluated.
        workers: Worker processes; 0 to evaluate in this process; None for one per GPU share, or per CPU core.
        gpus_per_worker: GPUs of each worker, may be a fraction; None for 1 where there is a GPU, else 0.
        ray_address: Ray cluster to join, e.g. ``auto``; None to start one on this machine.
        task_timeout: Seconds after which a worker's unit of work goes to another; None for 20 times the longest so
            far, at least 10 minutes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    presets: tuple[str, ...]
    baseline: str | None = None
    prompts: str | None = None
    all_prompts: bool = False
    limit: int | None = None
    until_decided: bool = False
    seeds: int = 1
    seed: int = 0
    options: ModelOptions = ModelOptions()
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    margin: str = "1%"
    size: tuple[int, int] | None = None
    chunk: int | None = None

    out: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    task_timeout: float | None = None
