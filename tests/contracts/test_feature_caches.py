"""What every feature cache must do on every family: cost what its price says, and leave nothing behind."""

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

STAGES = [
    {"scale": 0.5, "steps": 5, "shift": 3},
    {"scale": 1, "steps": 6, "strength": 0.8, "reuse": [3]},
]
CACHES: dict[str, dict[str, Any]] = {
    "first_block": {"threshold": 10.0},
    "taylorseer": {"warmup": 1, "interval": 2},
    "taylorseer, lite": {"warmup": 1, "interval": 3, "lite": True},
    "mag": {"ratios": [(1.0, 1.1), (0.7, 1.01), (0.4, 0.99), (0.1, 0.9)]},
    "pab": {"spatial": 2, "between": (0.2, 0.9)},
    "pab, cross": {"spatial": None, "cross": 2},
}
PROMPT = "a blue circle above a red square"


@pytest.fixture(scope="module", params=sorted(families()))
def model(request: pytest.FixtureRequest) -> Any:
    small = small_pipeline(request.param)
    pipe = small.build()
    known = shortened(wrap(pipe).blueprint, small)
    if known.passes == 2:  # prompts that keep their own length cost by it, so that both have to have one
        known = replace(known, negative_prompt=PROMPT)
    return known.wrap(pipe)


@pytest.mark.parametrize("name", CACHES)
def test_a_cached_run_costs_its_price_and_leaves_the_pipe_as_it_was(model: Any, name: str) -> None:
    cache = {"kind": name.partition(",")[0]} | CACHES[name]
    cached = Schedule.model_validate({"stages": STAGES, "cache": cache})
    plain = Schedule.model_validate({"stages": STAGES})
    conditioning, network = model.encode([PROMPT]), model.network(1.0)
    known = replace(model.blueprint, text_tokens=conditioning["tokens"].shape[1])
    found = {module: dict(vars(module)) for module in network.modules()}
    expected = sample(model, plain, conditioning, [1], (32, 32))
    latents, refusal = None, ""
    with FlopCounterMode(display=False) as counter:
        try:
            latents = sample(model, cached, conditioning, [1], (32, 32))
        except UserError as error:
            refusal = str(error)
    if latents is None:
        assert f"Cache {cache['kind']!r}" in refusal
        if cache["kind"] != "first_block":  # its price is an upper bound, for which nothing is cached
            with pytest.raises(UserError, match="Cache"):
                price(cached, known, (32, 32))
    else:
        cost, most = price(cached, known, (32, 32)), price(plain, known, (32, 32))
        spent = counter.get_total_flops() / 1e12
        assert spent < 0.99 * most.tflops
        assert spent == pytest.approx(cost.tflops, rel=1e-3) if cost.exact else spent < cost.tflops
        assert latents.isfinite().all()
        assert not torch.equal(latents, expected)
    assert {module: dict(vars(module)) for module in network.modules()} == found
    assert torch.equal(sample(model, plain, conditioning, [1], (32, 32)), expected)
