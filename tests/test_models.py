from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner import models
from tuner.errors import UserError
from tuner.models import Blueprint, blueprint, wrap


@pytest.mark.parametrize("name", models.available())
def test_every_family_states_its_defaults(name: str) -> None:
    known = blueprint(name)
    assert known.name == name
    assert known.check_size(known.size) == known.size
    baseline = known.baseline()
    assert baseline.steps == known.steps
    start = baseline.stages[0].sigmas[0]
    assert known.start(start) == pytest.approx(start, abs=0.01)
    assert 0.9 < start <= 1


def test_flux_shifts_by_image_size() -> None:
    flux = blueprint("flux")
    # mu is 1.15 at 4096 tokens (1024 x 1024) and 0.5 at 256 (256 x 256): the shift is exp(mu).
    sigma = flux.sigmas(2, (1024, 1024))[1]
    assert sigma / (1 - sigma) == pytest.approx(2.718281828**1.15)
    sigma = flux.sigmas(2, (256, 256))[1]
    assert sigma / (1 - sigma) == pytest.approx(2.718281828**0.5)


def test_a_point_in_a_short_name_is_a_p_in_its_file() -> None:
    assert {"sd3.5-medium", "sd3.5-large", "flux-schnell"} <= set(models.available())
    assert not [name for name in models.available() if name.startswith("-")]


def read_as(model: Blueprint) -> Callable[[str], Mapping[str, Any]]:
    """Stands in for the configuration files of a published model."""
    parts: dict[str, Mapping[str, Any]] = {
        "model_index.json": {"_class_name": model.pipeline_class, **model.index},
        f"{model.denoiser}/config.json": {
            key: list(value) if isinstance(value, tuple) else value for key, value in model.transformer.items()
        },
        "scheduler/scheduler_config.json": model.scheduler,
        "vae/config.json": {
            "block_out_channels": [1] * 4,
            "temperal_downsample": [True] * 3,
            "encoder_block_out_channels": [1] * 6,
        },
    }
    return lambda part: parts.get(part, {})


@pytest.mark.parametrize("name", [name for name in models.available() if not name.startswith("tiny")])
def test_a_published_models_configuration_is_recognised_as_that_model(name: str) -> None:
    known = blueprint(name)
    found = models._from_configs("somewhere/else", read_as(known))
    for field in ("height", "width", "multiple", "steps", "guidance", "negative_prompt", "passes"):
        assert getattr(found, field) == getattr(known, field), field
    assert found.baseline() == known.baseline()
    assert (found.name, found.source, found.scorers) == ("somewhere/else", "somewhere/else", None)


def test_a_folder_and_a_loaded_pipe_are_the_same_model(flux_pipe: Any, tmp_path: Path) -> None:
    flux_pipe.save_pretrained(tmp_path / "pipe")
    folder = blueprint(str(tmp_path / "pipe"))
    wrapped = wrap(flux_pipe).blueprint
    for field in ("height", "width", "multiple", "guidance", "text_tokens"):
        assert getattr(folder, field) == getattr(wrapped, field)
    assert folder.sigmas(5, (32, 32)) == wrapped.sigmas(5, (32, 32))
    loaded = folder.load(device="cpu")
    prompts = ["a red fox"]
    ours, theirs = loaded.encode(prompts), wrap(flux_pipe).encode(prompts)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fluxx", "Did you mean 'flux'"),
        ("nobody/nothing", "the hub did not answer"),
    ],
)
def test_unknown_models_are_user_errors(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blueprint(name)


def test_a_folder_without_a_pipeline_and_an_unknown_class_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        blueprint(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(UserError, match=r"'KandinskyPipeline'.*Known: ChromaPipeline.*FluxPipeline"):
        blueprint(str(tmp_path))


def test_a_model_that_cannot_be_fetched_is_a_user_error() -> None:
    with pytest.raises(UserError, match="give a local folder"):
        blueprint("flux").load(device="cpu")


def test_blueprints_need_no_torch() -> None:
    code = "import sys, tuner.models as m; [m.blueprint(n) for n in m.available()]; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
