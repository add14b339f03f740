from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.utils.flop_counter import FlopCounterMode

from tuner import generate
from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.flops import price
from tuner.models import blueprint, wrap
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

SIGMAS = tuple(1 - k / 12 for k in range(12))
PROMPTS = ["a red fox", "a blue circle above a red square"]


def cache(**fields: Any) -> Any:
    return TypeAdapter(FeatureCache).validate_python(fields)


def staged(**fields: Any) -> Schedule:
    return Schedule(
        stages=(Stage(scale=0.5, steps=5), Stage(steps=6, strength=0.7, shift=3)), cache=cache(**fields)
    )


@pytest.mark.parametrize(
    ("fields", "shortened"),
    [
        # 12 calls: 0, 1, 2 warm up, 4 and 9 are full.
        ({"kind": "taylorseer", "warmup": 3, "interval": 5}, [7]),
        ({"kind": "taylorseer", "warmup": 12}, [0]),
        # Calls 0, 3, 6, 9 are full.
        ({"kind": "mag", "retention": 0, "max_skip": 2, "ratios": [(0.5, 1.0)]}, [8]),
        # Two calls are retained; the next repeats with error 0.02, and one more makes it 0.02 + 0.0396 > 0.05.
        ({"kind": "mag", "threshold": 0.05, "ratios": [(0.5, 0.98)]}, [5]),
        ({"kind": "pab", "spatial": 2, "between": (-1, 2)}, [6]),
        ({"kind": "pab", "spatial": 2, "cross": 3, "between": (0.3, 0.8)}, [3, 4]),
        ({"kind": "first_block"}, []),
    ],
)
def test_calls_that_are_shortened(fields: dict[str, Any], shortened: list[int]) -> None:
    assert [calls for _, calls in cache(**fields).shortened(SIGMAS)] == shortened


def test_a_call_takes_the_ratio_of_the_nearest_noise_level() -> None:
    measured = cache(kind="mag", ratios=[(1, 1.2), (0.5, 1.1), (0, 0.9)])
    assert measured.at([0.9, 0.6, 0.3, 0.1]) == [1.2, 1.1, 1.1, 0.9]


def test_a_cache_that_is_off_changes_no_hash_and_one_that_is_on_does() -> None:
    plain = Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),))
    assert "cache" not in plain.model_dump()
    cached = plain.model_copy(update={"cache": cache(kind="first_block")})
    assert cached.content_hash != plain.content_hash
    assert Schedule.model_validate_json(cached.model_dump_json()) == cached


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"kind": "fora"}, "first_block"),
        ({"kind": "taylorseer", "interval": 1}, "greater than or equal to 2"),
        ({"kind": "taylorseer", "warmup": 0}, "greater than or equal to 1"),
        ({"kind": "mag"}, "ratios"),
        ({"kind": "mag", "ratios": []}, "at least 1"),
        ({"kind": "pab", "spatial": None}, "both are off"),
        ({"kind": "pab", "between": (0.8, 0.1)}, "`low < high` must hold"),
        ({"kind": "first_block", "threshold": 0}, "greater than 0"),
    ],
)
def test_broken_caches_name_the_rule(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        cache(**fields)


def test_a_cache_needs_one_call_per_step() -> None:
    with pytest.raises(ValidationError, match="use 'euler'"):
        Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),), solver="heun", cache=cache(kind="first_block"))


def test_every_stage_starts_with_an_empty_cache(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    schedule, conditioning = staged(kind="mag", retention=0, ratios=[(1.0, 1.0)]), model.encode(PROMPTS)
    calls: list[float] = []
    hook = flux_pipe.transformer.single_transformer_blocks[0].attn.register_forward_pre_hook(
        lambda *_: calls.append(model.sigma)
    )
    try:
        sample(model, schedule, conditioning, [1, 2], (32, 64))
    finally:
        hook.remove()
    # With ratios of 1 the first call of a stage is full and every fourth one after it.
    assert calls == [schedule.stages[0].sigmas[0], schedule.stages[0].sigmas[4], schedule.stages[1].sigmas[0]]


def test_the_first_block_decides_for_every_image_alone(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    schedule = staged(kind="first_block", threshold=0.4)
    together = sample(model, schedule, model.encode(PROMPTS), [1, 2], (32, 64))
    for row, prompt in enumerate(PROMPTS):
        alone = sample(model, schedule, model.encode([prompt]), [row + 1], (32, 64))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


def test_generate_counts_what_ran_where_the_price_is_an_upper_bound(flux_pipe: Any) -> None:
    schedule = staged(kind="first_block", threshold=10.0)
    most = price(schedule, wrap(flux_pipe).blueprint, (32, 64))
    assert not most.exact
    conditioning = wrap(flux_pipe).encode(PROMPTS[:1])
    with FlopCounterMode(display=False) as counter:
        sample(wrap(flux_pipe), schedule, conditioning, [0], (32, 64))
    result = generate(flux_pipe, PROMPTS[0], schedule, height=32, width=64)
    assert result.tflops == pytest.approx(counter.get_total_flops() / 1e12)
    assert result.tflops < most.tflops
    assert generate(flux_pipe, PROMPTS[0], staged(kind="pab"), height=32, width=64).tflops is None


def test_a_pipe_with_a_cache_of_its_own_is_refused(flux_pipe: Any) -> None:
    from diffusers import FirstBlockCacheConfig

    flux_pipe.transformer.enable_cache(FirstBlockCacheConfig())
    try:
        with pytest.raises(UserError, match=r"disable_cache\(\)"):
            wrap(flux_pipe)
    finally:
        flux_pipe.transformer.disable_cache()


def test_a_network_without_caching_is_a_user_error() -> None:
    model = blueprint("sd3.5-medium")
    schedule = model.plain(5).model_copy(update={"cache": cache(kind="taylorseer")})
    with pytest.raises(UserError, match=r"'taylorseer' .* SD3Transformer2DModel"):
        price(schedule, model)
