from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

import objectives
import tuner
from tests.small_flux import stock_latents
from tuner.models import blueprint
from tuner.sampling import sample

PROMPTS = [
    "red circle on plain black",
    "blue square above green ring on striped gray",
    "yellow triangle on plain gray",
]


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = FluxPipeline.from_pretrained(blueprint("tiny").source)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("size", [(64, 64), (32, 64)])
def test_the_baseline_equals_the_stock_pipeline(pipe: Any, size: tuple[int, int]) -> None:
    model = blueprint("tiny").wrap(pipe)
    steps = blueprint("tiny").steps
    ours = sample(model, model.blueprint.baseline(size), model.encode(PROMPTS), [1, 2, 3], size)
    theirs = stock_latents(pipe, PROMPTS, [1, 2, 3], steps, size, text_tokens=model.blueprint.text_tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_wrapped_pipe_is_the_same_model_as_the_short_name(pipe: Any) -> None:
    known, wrapped = blueprint("tiny"), tuner.models.wrap(pipe).blueprint
    assert wrapped.text_tokens == known.text_tokens
    assert wrapped.multiple == known.multiple
    assert wrapped.sigmas(8, (64, 64)) == known.sigmas(8, (64, 64))


def test_all_embedded_weights_together_are_small() -> None:
    packages = [Path(tuner.__file__).parent, Path(objectives.__file__).parent]
    weights = [path for package in packages for path in package.rglob("*.safetensors")]
    assert weights
    assert sum(path.stat().st_size for path in weights) <= 25e6


def test_the_package_holds_its_data(tmp_path: Path) -> None:
    import zipfile

    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parent.parent
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    packed = set(zipfile.ZipFile(wheel).namelist())
    for package in ("tuner", "search_spaces", "objectives", "studies"):
        for kind in ("*.py", "*.yaml", "*.txt", "*.json", "*.safetensors"):
            assert {str(path.relative_to(root)) for path in (root / package).rglob(kind)} <= packed
    assert "tuner/tiny/weights/pipeline/model_index.json" in packed
