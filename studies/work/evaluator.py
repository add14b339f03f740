"""Runs units of work on a model and objectives that are loaded once."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from objectives import needs_references, score
from studies.work.baseline_images import BaselineImages
from studies.work.broken_images import decode_and_check, fault_counts, summary
from studies.work.encodings import Chunk, Encodings
from studies.work.first_velocity import FirstVelocity
from studies.work.memory import halves, joined, out_of_memory
from studies.work.objective_warnings import noted
from studies.work.own_options import Contender, Dressed
from studies.work.png import png
from studies.work.reuse import LIMIT, kept_stages, opening_keys, prefix_keys
from studies.work.task import ChunkResult, Failure, Redrawn, Task
from studies.work.tensor_cache import TensorCache
from tuner.errors import one_line
from tuner.invariance import batch_invariant, decode_each
from tuner.models import Conditioning, FlowModel, Item, ModelOptions
from tuner.sampling import run_stage

if TYPE_CHECKING:
    import torch

    from objectives import AnyObjective

_DEFAULT_OPTIONS = ModelOptions()


class _Drawn(NamedTuple):
    """Clean latents, and the cache hits that they took."""

    latents: torch.Tensor
    kept_stages: int
    kept_calls: tuple[int, ...]


class Evaluator:
    """Draws images and scores them. It knows nothing of workers.

    Args:
        model: The model to sample from.
        objectives: The objectives, with distinct names.
        cache_bytes: Memory for text encodings, latents between stages, and first velocities of stages; see
            `TensorCache`.
        baseline: Reference of the fidelity objectives; None for the model's own baseline.
        encodings: Text that was encoded before; None to encode each chunk when it comes.
    """

    def __init__(
        self,
        model: FlowModel,
        objectives: Sequence[AnyObjective],
        cache_bytes: int = LIMIT,
        baseline: Contender | None = None,
        encodings: Encodings | None = None,
    ):
        self._model = model
        self._dressed = Dressed(model)
        self._objectives = list(objectives)
        self._baseline = baseline
        self._encodings = encodings
        self._cache = TensorCache(cache_bytes)
        self._baseline_images = BaselineImages()
        self._redrawn: list[Redrawn] = []  # not reported yet

    @classmethod
    def load(
        cls,
        model: str,
        objectives: Sequence[str],
        device: str | None = None,
        options: ModelOptions = _DEFAULT_OPTIONS,
        baseline: Contender | None = None,
        texts: Sequence[Chunk] = (),
        share: float = 1.0,
    ) -> Evaluator:
        """Loads the weights of a model and of objectives.

        Args:
            model: Short name, folder or hub id.
            objectives: ``name:weights`` of each.
            device: Torch device; None for the first GPU that this process may use, else the CPU.
            options: Guidance, LoRA, precision and placement of the model.
            baseline: Reference of the fidelity objectives; None for the model's own baseline.
            texts: The prompts of every task, which are encoded now if the options free the text encoders.
            share: Part of the GPU that is this process's own.

        Raises:
            UserError: If any weights cannot be loaded, or those of the model do not fit the GPU.
        """
        import torch

        from objectives import load
        from tuner.fits import check_fits
        from tuner.models import blueprint

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        known = blueprint(model).with_options(options)
        check_fits(known, options, device, share)
        flow = known.load(device, options=options)
        encodings = Encodings(flow, texts) if options.free_text_encoders else None
        return cls(flow, [load(spec, device) for spec in objectives], baseline=baseline, encodings=encodings)

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        """Runs a task. Equal tasks give equal scores, on a CPU bit by bit.

        When memory runs out, the caches are emptied and the task runs again in halves, down to single images, and
        then with components of the model off the device where the options allow that. The noise belongs to the
        image, so halves draw what the whole would have drawn.

        Returns:
            The scores, or a failure; it is transient where even one image did not fit.
        """
        try:
            return self._evaluate(task)
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = one_line(error)
        self._free_memory()  # not inside `except`: the traceback keeps the tensors alive
        if len(task.prompts) == 1:
            if self._model.make_room():
                return self.evaluate(task)
            return Failure(
                f"one image does not fit into memory ({reason}); try --offload model, --quantize nf4 or --tiling.",
                transient=True,
            )
        return joined([self.evaluate(half) for half in halves(task)])

    def _free_memory(self) -> None:
        import gc

        import torch

        self._cache.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _evaluate(self, task: Task) -> ChunkResult | Failure:
        model = self._dressed.model(task.own)
        start = time.perf_counter()
        with batch_invariant(model):
            drawn = self._sample(model, task)
            latents = drawn.latents
            finite = latents.isfinite().flatten(1).all(dim=1).tolist()  # waits for a GPU: the clock is right
            sampled = time.perf_counter()
            images, faults = decode_and_check(model, latents, finite)
        decoded = time.perf_counter()
        if degenerate := fault_counts(faults):
            first = next(prompt for prompt, fault in zip(task.prompts, faults, strict=True) if fault)
            return Failure(f"{summary(degenerate, len(faults))}, the first for {first!r}", degenerate=degenerate)
        references = self._references(task, images)
        referred = time.perf_counter()
        scores: dict[str, list[float]] = {}
        notes: dict[str, str] = {}
        for objective in self._objectives:
            with noted(notes, objective.name):
                scores[objective.name] = score(objective, images, task.prompts, references)
        for name, of_prompts in scores.items():
            if not all(map(math.isfinite, of_prompts)):
                return Failure(f"objective {name!r} gave a score that is not finite: {of_prompts}.")
        seconds = {
            "sampling": sampled - start,
            "decoding": decoded - sampled,
            "scoring": time.perf_counter() - referred,
        }
        if references is not None:
            seconds["references"] = referred - decoded
        pictures = tuple(_png(image) for image in images) if task.keep_images else ()
        redrawn, self._redrawn = tuple(self._redrawn), []
        return ChunkResult(
            scores, seconds, pictures, notes, drawn.kept_stages, drawn.kept_calls, model.runtime, redrawn
        )

    def _references(self, task: Task, items: Sequence[Item]) -> Sequence[Item] | None:
        """Returns the baseline's items if any objective compares with them; draws them if they are not kept."""
        if not any(needs_references(objective) for objective in self._objectives):
            return None
        kept: Sequence[Item] | None = items
        if task.drawing != self._baseline_of(task).drawing:
            kept = self._baseline_images.of(task)
        if kept is None:
            kept = self._draw_baseline(task)
        self._baseline_images.keep(task, kept)
        return kept

    def _baseline_of(self, task: Task) -> Task:
        """Returns the task that draws the baseline for the same prompts and noise."""
        if self._baseline is not None:
            return replace(task, schedule=self._baseline.schedule, own=self._baseline.own)
        return replace(task, schedule=self._model.blueprint.baseline(task.size), own=None)

    def _draw_baseline(self, task: Task) -> Sequence[Item]:
        baseline = self._baseline_of(task)
        model = self._dressed.model(baseline.own)
        with batch_invariant(model):
            drawn = self._sample(model, baseline)
            self._redrawn.append(Redrawn(len(task.prompts), drawn.kept_stages, drawn.kept_calls))
            return decode_each(model, drawn.latents)

    def _sample(self, model: FlowModel, task: Task) -> _Drawn:
        """Runs the stages after the longest cached prefix, and takes first velocities from the cache."""
        keys, openings = prefix_keys(task), opening_keys(task)
        first, kept_calls = kept_stages(keys, self._cache), list[int]()
        x: torch.Tensor | None = self._cache.get(keys[first - 1]) if first else None
        conditioning = self._encode(model, task)
        for index in range(first, len(task.schedule.stages)):
            caller: Any = model
            if openings:
                caller = FirstVelocity(model, functools.partial(self._cache.once, openings[index]))
                if openings[index] in self._cache:
                    kept_calls.append(index)
            x = run_stage(caller, task.schedule, index, x, conditioning, task.seeds, task.size)
            if index < len(keys):
                self._cache.keep(keys[index], x)
        assert x is not None  # a schedule has at least one stage
        return _Drawn(x, first, tuple(kept_calls))

    def _encode(self, model: FlowModel, task: Task) -> Conditioning:
        if self._encodings is not None:
            return self._encodings.of(task.prompts, model.device)
        return self._cache.once((task.prompts, task.own), lambda: model.encode(task.prompts))


def _png(item: Item) -> bytes:
    """Writes an image, or the middle frame of a video."""
    return png(item[len(item) // 2] if isinstance(item, list) else item)
