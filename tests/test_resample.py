from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tuner.resample import resize
from tuner.schedule import RESAMPLE_MODES

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("mode", sorted(PILLOW))
@pytest.mark.parametrize(("source", "target"), [((8, 12), (16, 24)), ((16, 16), (8, 8)), ((10, 6), (7, 9))])
def test_kernels_equal_pillows(mode: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    x = torch.randn(1, 1, *source, generator=torch.Generator().manual_seed(0))
    ours = resize(x, target, mode)[0, 0].numpy()  # type: ignore[arg-type]
    image = Image.fromarray(x[0, 0].numpy(), mode=None).resize(target[::-1], PILLOW[mode])
    np.testing.assert_allclose(ours, np.asarray(image), atol=2e-5)


@settings(max_examples=30)
@given(
    mode=st.sampled_from(RESAMPLE_MODES),
    source=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    target=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    value=st.floats(-4, 4),
)
def test_a_constant_stays_constant(
    mode: str, source: tuple[int, int], target: tuple[int, int], value: float
) -> None:
    result = resize(torch.full((2, 3, *source), value), target, mode)  # type: ignore[arg-type]
    assert result.shape == (2, 3, *target)
    torch.testing.assert_close(result, torch.full_like(result, value), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", RESAMPLE_MODES)
def test_the_same_size_is_returned_untouched(mode: str) -> None:
    x = torch.randn(1, 4, 6, 6)
    assert resize(x, (6, 6), mode) is x  # type: ignore[arg-type]


def test_area_averages_and_nearest_picks() -> None:
    x = torch.tensor([[[[0.0, 1, 2, 3]]]])
    assert resize(x, (1, 2), "area").flatten().tolist() == [0.5, 2.5]
    assert set(resize(x, (1, 2), "nearest").flatten().tolist()) <= {0.0, 1, 2, 3}
