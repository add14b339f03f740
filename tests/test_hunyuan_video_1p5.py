"""What HunyuanVideo 1.5 has that no other family does: a guider, quoted text, and tokens sorted by their masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.small_pipelines import shortened, small_pipeline
from tuner.errors import UserError
from tuner.flops import tflops_per_pass
from tuner.models import blueprint, wrap
from tuner.sampling import sample

SMALL = small_pipeline("HunyuanVideo15Pipeline")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SMALL.build()


@pytest.mark.parametrize("size", [(480, 848), (720, 1280)])
def test_a_pass_costs_what_the_networks_dimensions_say(size: tuple[int, int]) -> None:
    # 54 blocks of width D = 2048 over N tokens of video and 1000 + 256 + 729 of conditioning: 12 D^2 weights that
    # each token meets, and its products with all others. What is outside the blocks is 0.02 %.
    width, tokens = 2048, 31 * (size[0] // 16) * (size[1] // 16) + 1985
    expected = 54 * (24 * width**2 * tokens + 4 * width * tokens**2) / 1e12
    assert tflops_per_pass(blueprint("hunyuan-video-1.5"), size) == pytest.approx(expected, rel=5e-4)


def test_quoted_words_reach_the_network(pipe: Any) -> None:
    model = shortened(wrap(pipe).blueprint, SMALL).wrap(pipe)
    size, prompts = SMALL.SIZES[0], ['a "red fox"', "a red fox"]
    text = model.encode(prompts)
    assert text["quoted_mask"].sum(dim=1).bool().tolist() == [True, False]
    ours = sample(model, model.blueprint.plain(2, size), text, [1, 1], size)
    torch.testing.assert_close(ours, SMALL.stock_latents(pipe, model.blueprint, prompts, [1, 1], 2, size))
    assert not torch.allclose(ours[0], ours[1])


def test_the_guidance_scale_is_the_guiders(pipe: Any) -> None:
    distilled = pipe.guider.new(guidance_scale=1.0)
    known = wrap(type(pipe)(**(pipe.components | {"guider": distilled}))).blueprint
    assert (known.guidance, known.passes) == (1.0, 1)


def test_a_guider_that_does_more_is_a_user_error(pipe: Any) -> None:
    late = pipe.guider.new(start=0.5)
    with pytest.raises(UserError, match=r"start=0\.5 is not supported"):
        wrap(type(pipe)(**(pipe.components | {"guider": late})))
