"""What guidance of a stage must do on every family: the passes that it says, at their price, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.small_pipelines import families, shortened, small_pipeline
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import wrap
from tuner.sampling import sample
from tuner.schedule import Schedule

SIZE = (32, 32)
PROMPT = ["a blue circle above a red square"]
SIGMAS = [1, 0.9, 0.7, 0.4, 0.2, 0]


@pytest.fixture(scope="module", params=sorted(families()))
def model(request: pytest.FixtureRequest) -> Any:
    small = small_pipeline(request.param)
    pipe = small.build()
    known = shortened(wrap(pipe).blueprint, small)
    if known.passes == 2:  # prompts that keep their own length cost by it, so that both have to have one
        known = replace(known, negative_prompt="a red square above a blue circle")
    return known.wrap(pipe)


def schedule(*stages: dict[str, Any]) -> Schedule:
    return Schedule.model_validate({"stages": stages})


def drawn(model: Any, plan: Schedule) -> torch.Tensor:
    return sample(model, plan, model.encode(PROMPT), [1], SIZE)


PLAIN = schedule({"sigmas": SIGMAS})


def test_a_stage_s_scale_is_what_a_model_of_that_scale_has(model: Any) -> None:
    known = model.blueprint
    if known.guidance is None:
        with pytest.raises(UserError, match="takes no guidance scale"):
            drawn(model, schedule({"sigmas": SIGMAS, "guidance": 3}))
        return
    other = schedule({"sigmas": SIGMAS, "guidance": known.guidance + 2.5})
    assert torch.equal(drawn(model, schedule({"sigmas": SIGMAS, "guidance": known.guidance})), drawn(model, PLAIN))
    louder = replace(known, guidance=known.guidance + 2.5).wrap(model.pipe)
    assert torch.equal(drawn(model, other), drawn(louder, PLAIN))
    assert not torch.equal(drawn(model, other), drawn(model, PLAIN))
    assert price(other, known, SIZE) == price(PLAIN, known, SIZE)


def test_an_interval_of_everything_is_none(model: Any) -> None:
    everywhere = schedule({"sigmas": SIGMAS, "guide": [1, 0]})
    if model.blueprint.passes == 1:
        with pytest.raises(UserError, match=r"takes no guidance scale|`guide`; leave it out"):
            drawn(model, everywhere)
        with pytest.raises(UserError, match=r"takes no guidance scale|`guide`; leave it out"):
            price(everywhere, model.blueprint, SIZE)
        return
    assert torch.equal(drawn(model, everywhere), drawn(model, PLAIN))
    assert price(everywhere, model.blueprint, SIZE) == price(PLAIN, model.blueprint, SIZE)


@pytest.mark.parametrize(
    ("stages", "guided"),
    [
        ([{"sigmas": SIGMAS, "guide": [0.9, 0.2]}], 3),  # 0.9, 0.7 and 0.4
        ([{"sigmas": SIGMAS[:3], "guide": [0.95, 0.3]}, {"sigmas": SIGMAS[2:], "guidance": 0}], 1),
        ([{"sigmas": SIGMAS, "guide": [0.69, 0.41], "reuse": [2]}], 0),
    ],
)
def test_what_runs_is_what_is_counted(model: Any, stages: list[dict[str, Any]], guided: int) -> None:
    known = model.blueprint
    if known.passes == 1:
        pytest.skip("it makes one pass")
    plan, conditioning = schedule(*stages), model.encode(PROMPT)
    calls = sum(len(stage.sigmas) - 1 - len(stage.reuse) for stage in plan.stages)
    rows: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(kwargs.get("hidden_states", args[0] if args else None)))

    hook = getattr(model.pipe, known.denoiser).register_forward_pre_hook(count, with_kwargs=True)
    try:
        with FlopCounterMode(display=False) as counter:
            sample(model, plan, conditioning, [1], SIZE)
    finally:
        hook.remove()
    cost = price(plan, replace(known, text_tokens=conditioning["tokens"].shape[1]), SIZE)
    assert cost.nfe == sum(rows) == calls + guided * (known.passes - 1)
    assert counter.get_total_flops() / 1e12 == pytest.approx(cost.tflops, rel=1e-3)


def test_nothing_of_it_stays_in_the_model(model: Any) -> None:
    if model.blueprint.passes == 1:
        pytest.skip("it makes one pass")
    before = drawn(model, PLAIN)
    assert not torch.equal(drawn(model, schedule({"sigmas": SIGMAS, "guide": [0.8, 0.3]})), before)
    assert torch.equal(drawn(model, PLAIN), before)
