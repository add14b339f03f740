"""Any file that is handed to `tuner import` is a preset or one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fuzzing import broken_bytes, broken_json, fuzzed
from tuner import exporters, importers, models, presets
from tuner.errors import UserError
from tuner.exporters import ExportOptions
from tuner.models import Blueprint
from tuner.presets import Preset

_FLUX = models.blueprint("flux")


def _workflow(name: str) -> bytes:
    return exporters.load("comfyui").export(presets.load(name), _FLUX, ExportOptions()).encode()


def _image(workflow: bytes) -> bytes:
    info = PngInfo()
    info.add_text("prompt", workflow.decode())
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


_WORKFLOWS = {name: _workflow(name) for name in ("ralu-flux-4x", "swd-flux-4")}
_IMAGE = _image(_WORKFLOWS["ralu-flux-4x"])
_CONFIG = json.dumps(dict(_FLUX.scheduler) | {"_class_name": "FlowMatchEulerDiscreteScheduler"}).encode()
_NEUTRAL = exporters.load("sigmas").export(presets.load("ralu-flux-4x"), _FLUX, ExportOptions()).encode()
_LISTS = [b"1.0, 0.75, 0.5, 0.25, 0.0", b"[1.0, 0.5, 0.0]", b"1\n0.9\n0.3\n0\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")


def read(path: Path, content: bytes, model: Blueprint | None) -> Preset | None:
    path.write_bytes(content)
    try:
        return importers.read(path, model, (1024, 1024))
    except UserError:
        return None


@fuzzed(0.15)
@given(st.data())
def test_workflows(folder: Path, data: Any) -> None:
    content = _WORKFLOWS[data.draw(st.sampled_from(sorted(_WORKFLOWS)))]
    read(folder / "x.json", broken_json(data.draw, content), data.draw(st.sampled_from([None, _FLUX])))


@fuzzed(0.1)
@given(st.data())
def test_images(folder: Path, data: Any) -> None:
    content = data.draw(
        st.sampled_from([lambda: broken_bytes(data.draw, _IMAGE), lambda: _broken_inside(data.draw)])
    )()
    read(folder / "x.png", content, None)


def _broken_inside(draw: Any) -> bytes:
    return _image(broken_json(draw, _WORKFLOWS["swd-flux-4"]).decode("latin-1").encode())


@fuzzed(0.1)
@given(st.data())
def test_configurations_of_schedulers(folder: Path, data: Any) -> None:
    read(folder / "x.json", broken_json(data.draw, _CONFIG), _FLUX)


@fuzzed(0.1)
@given(st.data())
def test_lists_of_levels(folder: Path, data: Any) -> None:
    content = data.draw(st.sampled_from([*_LISTS, _NEUTRAL]))
    made = read(folder / data.draw(st.sampled_from(["x.txt", "x.json"])), broken_bytes(data.draw, content), _FLUX)
    if made is not None:
        assert made.schedule.stages[-1].sigmas[-1] == 0
