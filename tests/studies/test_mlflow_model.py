"""A preset as a model of MLflow, run by MLflow's own command."""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studies.report.mlflow_model import EXPORTER
from tuner import generate, models, presets
from tuner.exporters import ExportOptions, RefusedError
from tuner.lora import applied
from tuner.models import Blueprint
from tuner.presets import Preset

ROOT = Path(__file__).parents[2]


def shipped(name: str) -> tuple[Preset, Blueprint]:
    preset = presets.load(name)
    known = models.blueprint(preset.model)
    return preset, known.with_options(preset.model_options) if preset.model_options else known


def test_the_package_registers_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["tuner.exporters"]["mlflow"].partition(":")
    assert getattr(importlib.import_module(module), name) is EXPORTER


def test_mlflow_models_predict_draws_what_generate_draws(tmp_path: Path) -> None:
    """The preset has a LoRA, which the model's folder takes along.

    The process has its weights elsewhere in memory, and matrix products may round by it: a grey level at most.
    """
    preset, known = shipped("swd-tiny-4")
    EXPORTER.save(preset, known, ExportOptions(), tmp_path / "circle.mlflow")
    asked = {"inputs": [{"prompt": "a red circle", "seed": 3}]}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    command = "models predict -m circle.mlflow -i asked.json -t json -o told.json --env-manager local"
    subprocess.run([sys.executable, "-m", "mlflow", *command.split()], cwd=tmp_path, check=True)
    (told,) = json.loads((tmp_path / "told.json").read_text())["predictions"]
    made = Image.open(io.BytesIO(base64.b64decode(told["image"])))
    flow = known.load(options=preset.model_options)
    with applied(flow, None):
        expected = generate(flow, "a red circle", preset, seed=3).images[0]
    difference = np.asarray(made, dtype=int) - np.asarray(expected, dtype=int)
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= 0.001 * difference.size


def test_a_model_is_replaced_and_holds_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, known = shipped("ralu-flux-4x")
    folder = tmp_path / "deep" / "model.mlflow"
    for notes in ("first", 'a \\ and """ and {braces}'):
        EXPORTER.save(preset.model_copy(update={"notes": notes}), known, ExportOptions(), folder)
    held: list[Any] = []
    monkeypatch.setattr("mlflow.models.set_model", held.append)
    exec((folder / "preset_model.py").read_text(), {})
    assert held[0]._preset == preset.model_copy(update={"notes": notes})


def test_videos_are_refused() -> None:
    preset, _ = shipped("ralu-flux-4x")
    with pytest.raises(RefusedError, match=r"MLflow cannot carry this preset exactly: .*makes videos"):
        EXPORTER.export(preset, models.blueprint("wan2.1-1.3b"), ExportOptions())
