"""Any folder that is handed to ``--model`` is a model or one line."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import broken_json, fuzzed
from tuner import models
from tuner.errors import UserError
from tuner.flops import price

_SOURCE = Path(models.blueprint("tiny").source)
_CONFIGS = ("model_index.json", "transformer/config.json", "scheduler/scheduler_config.json", "vae/config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `tiny` without weights, which are not read."""
    path = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(_SOURCE, path, ignore=shutil.ignore_patterns("*.safetensors"))
    return path


@fuzzed(0.3)
@given(st.data())
def test_model_folders(folder: Path, data: Any) -> None:
    name = data.draw(st.sampled_from(_CONFIGS))
    (folder / name).write_bytes(broken_json(data.draw, (_SOURCE / name).read_bytes()))
    try:
        model = models.blueprint(str(folder))
        baseline = model.baseline((64, 64))
        assert math.isfinite(price(baseline, model, (64, 64)).tflops)
    except UserError:
        pass
    finally:
        shutil.copyfile(_SOURCE / name, folder / name)
