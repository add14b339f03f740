"""Measures what each part of Scale-wise Distillation is worth: students trained without it, for the same time.

The parts are those of the paper's Tables 2, 5 and 6 (arXiv 2503.16397). Of their values, `_PAPER` has those of
Table 2 (SD3.5 Medium, COCO); the others are not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.evaluate.ablations import WHOLE, OnProgress, Row, Values, score_all
from studies.evaluate.contenders import contender
from studies.judge.intervals import paired_score
from studies.work.own_options import Contender, drawing_price
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import Blueprint, ModelOptions

if TYPE_CHECKING:
    from studies.work.evaluator import Evaluator
    from tuner.distill.swd import SwdSettings

SCALES = (0.5, 0.625, 0.75, 1.0)
"""The authors' sizes of four steps."""
UNTRAINED = "untrained"
_GRID, _TAKEN = 28, (0, 7, 14, 18)
"""The authors' levels of four steps: these of 28 on the model's own grid; without time shift the last is 21."""
_PAPER: Mapping[str, tuple[float, float]] = {WHOLE: (1.12, 1.12), "2 full-size steps": (1.03, 1.12)}
"""ImageReward of a row, and of the whole method in the same table of the paper."""


def shifted_sigmas(model: Blueprint) -> tuple[float, ...]:
    """Returns the authors' noise levels of four steps on a model's own grid, then 0."""
    return _of_own_grid(model, _TAKEN)


def students(whole: SwdSettings, model: Blueprint) -> dict[str, SwdSettings]:
    """Makes the settings of the ablated students, the whole method first.

    * no time shift: levels at even distances on the model's own grid.
    * late growth: the first size up to the last step.
    * full-size steps: without scale-wise training, plain steps at full size; the two numbers of steps whose costs
      enclose that of the whole method, or the one that costs the same.
    * no patch loss, and the naive one that compares place by place.

    Args:
        whole: The whole method.
        model: The model.

    Raises:
        UserError: If the whole method has no patch loss beside another one.
    """
    if "mmd" not in whole.losses or len(whole.losses) == 1:
        raise UserError(
            f"Ablations need the patch loss `mmd` and another one to train with, but the losses are "
            f"{', '.join(whole.losses)}; give --loss mmd,dmd,gan, say."
        )
    count, first = len(whole.scales), whole.scales[0]
    found = {
        WHOLE: whole,
        "no time shift": _changed(whole, sigmas=_even(model, count)),
        "late growth": _changed(whole, scales=(*[first] * (count - 1), 1.0)),
    }
    found = {name: one for name, one in found.items() if name == WHOLE or one != whole}
    equal = price(whole.schedule, model).tflops / price(model.plain(1), model).tflops
    for steps in sorted({max(1, math.floor(equal)), math.ceil(equal)}):
        name = f"{steps} full-size step{'s' * (steps > 1)}"
        found[name] = _changed(whole, scales=(1.0,) * steps, sigmas=_even(model, steps))
    rest = tuple(loss for loss in whole.losses if loss != "mmd")
    found["no patch loss"] = _changed(whole, losses=rest)
    found["naive patch loss"] = _changed(whole, losses=("patch", *rest))
    return found


def contenders(trained: Mapping[str, Path], model: Blueprint) -> list[Contender]:
    """Makes contenders of the presets of trained students, and of the whole schedule without its LoRA."""
    given = ModelOptions()
    loaded = {name: presets.load(path) for name, path in trained.items()}
    made = [contender(name, loaded, model, given, model.size) for name in loaded]
    named = [Contender(name, one.schedule, one.own) for name, one in zip(loaded, made, strict=True)]
    return [named[0], Contender(UNTRAINED, named[0].schedule), *named[1:]]


def measure(
    evaluator: Evaluator,
    model: Blueprint,
    found: Sequence[Contender],
    prompts: Sequence[str],
    batch: int,
    seed: int,
    on_progress: OnProgress,
) -> list[Row]:
    """Draws and scores students on the same prompts and noise; the first is what the others are compared with.

    Args:
        evaluator: Model and objectives.
        model: The model, for the costs.
        found: The students.
        prompts: Two or more.
        batch: Images drawn at once.
        seed: Noise seed of the first prompt.
        on_progress: Called after every batch.

    Raises:
        UserError: If a student gives no valid image.
    """
    values = score_all(evaluator, found, prompts, model.size, batch, seed, on_progress)
    whole = values[found[0].name]
    return [
        Row(
            one.name,
            drawing_price(one.schedule, one.own, model, model.size).tflops,
            {name: paired_score(scores, whole[name]) for name, scores in values[one.name].items()},
            _in_the_paper(one.name),
        )
        for one in found
    ]


def _even(model: Blueprint, steps: int) -> tuple[float, ...]:
    return _of_own_grid(model, [_GRID * step // steps for step in range(steps)])


def _of_own_grid(model: Blueprint, indices: Sequence[int]) -> tuple[float, ...]:
    """Takes levels of the model's own grid, to six decimals as presets have them, and 0 at the end."""
    sigmas = model.sigmas(_GRID, model.size)
    return (*(round(sigmas[index], 6) for index in indices), 0.0)


def _changed(whole: SwdSettings, **changes: object) -> SwdSettings:
    return type(whole)(**(whole.model_dump() | changes))


def _in_the_paper(name: str) -> dict[str, Values]:
    if name not in _PAPER:
        return {}
    value, whole = _PAPER[name]
    return {"image_reward": (value, round(value - whole, 2))}
