"""What a user decides about a search."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from tuner.models import ModelOptions

DEFAULT_OBJECTIVES = ("clip", "image_reward")


class SearchSettings(BaseModel):
    """All options of a search. ``studies.plan.plan.make_plan`` checks them; this class only holds them.

    What decides the result: two searches that agree here propose the same trials and find the same front, on
    any number of workers.

    Attributes:
        model: Short name, folder or hub id.
        budget: What one image may cost, e.g. ``3x``, ``40%``, ``1200T``, ``16nfe``, ``4s``.
        trials: Each scores a schedule on the prompts of one rung. One for every preset and step reduction that is
            evaluated, too, comes on top, and so do those that complete the front.
        seed: Seed of the proposals and of the images' noise.
        objectives: ``name`` or ``name:weights``; a name alone takes the weights that suit the model.
        space: Name of the search space, or ``NAME:PRESET`` for one around a preset.
        for_target: Format of ``tuner export`` that carries every schedule exactly; None for no limit.
        learn_from: Earlier studies, or files of their knowledge, that proposals learn from.
        start: Evaluated beside the shipped presets: other presets, by name or file, or files of other tools.
        prompts: File with one prompt per line; None for the shipped set that suits the model.
        size: Output (height, width) in pixels; the model's default if None.
        search_prompts: At most this many prompts score a candidate.
        held_out_prompts: At most this many other prompts score the pick.
        rungs: A candidate is scored on 1/4^(rungs - 1) of the search prompts first, and where that promises most,
            on four times as many, and so on; 1 for all prompts at once. See ``studies.judge.early_stopping``.
        chunk: Prompts per unit of work, drawn as one batch; None for 8, less for large images and videos.
        options: Guidance, negative prompt, LoRA, precision and quantisation of the model; where its weights are
            placed, which is part of it, does not decide the result.
        lag: A proposal sees the results of all trials but the ``lag - 1`` last ones, which may still run. It is
            chosen by hand, and not from the number of workers, because it decides what is proposed. To keep W
            workers busy, though trials are told in order and one unit of work in ten may take three times as
            long as the others, about 6 W units must be in flight: lag 6 W / (units of work per schedule) with
            one rung, and at most twice as much with two, or four times where the first rung is a quarter.

    What does not decide it:

    Attributes:
        study: Name of the study and of its folder; None for ``MODEL-BUDGET``.
        pick: Which member of the front is exported: ``knee``, ``cheapest``, ``best:OBJECTIVE`` or
            ``within:MARGIN``.
        check_prompts: The check of the pick goes on over at most this many unseen prompts, until it is decided
            (``studies.judge.sequential``). None for the held-out prompts, or for all with ``check_tflops``.
        check_tflops: Denoiser TFLOPs that the check may take if the pick spends the whole budget; None for no
            limit.
        margin: The largest loss that counts as none in that check; see `parse_margins`.
        out: Folder that holds the studies.
        workers: Worker processes; 0 to evaluate in this process; None for one per GPU share, or per CPU core.
        gpus_per_worker: GPUs of each worker, may be a fraction; None for 1 where there is a GPU, else 0.
        ray_address: Ray cluster to join, e.g. ``auto``; None to start one on this machine.
        task_timeout: Seconds after which a worker's unit of work goes to another; None for 20 times the longest so
            far, at least 10 minutes.
        storage: Optuna storage URL; None for a journal in the study's folder.
        tracking_uri: MLflow server or database; None for a local one in ``out``.
        time_limit: Seconds after which nothing new is proposed; None for no limit.
        max_tflops: Denoiser TFLOPs that the study may take, all together; None for no limit.
        patience: Ends the search after so many trials without a gain in hypervolume; None for all trials.
        reuse: Whether scores are taken from other studies in ``out`` that have the same evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    budget: str
    trials: int = 60
    seed: int = 0
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    space: str = "free"
    for_target: str | None = None
    start: tuple[str, ...] = ()
    learn_from: tuple[str, ...] = ()
    prompts: str | None = None
    size: tuple[int, int] | None = None
    search_prompts: int = 32
    held_out_prompts: int = 64
    rungs: int = 2
    chunk: int | None = None
    lag: int = 4
    options: ModelOptions = ModelOptions()

    study: str | None = None
    pick: str = "within:1%"
    check_prompts: int | None = None
    check_tflops: float | None = None
    margin: str = "1%"
    out: str = "runs"
    workers: int | None = None
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    task_timeout: float | None = None
    storage: str | None = None
    tracking_uri: str | None = None
    time_limit: float | None = None
    max_tflops: float | None = None
    patience: int | None = None
    reuse: bool = True

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        off = {name for name in ("for_target", "learn_from") if not data[name]}
        return {key: value for key, value in data.items() if key not in off}

    @property
    def name(self) -> str:
        """The study's name: as given, or made of the model and the budget."""
        if self.study is not None:
            return self.study
        model = self.model.rstrip("/").split("/")[-1] or "model"
        return f"{model}-{''.join(self.budget.split()).replace('%', 'pct')}"
