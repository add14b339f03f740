from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Outcome
from tuner import models, presets

Run = Callable[..., Outcome]

PRICED = [name for name in presets.available() if presets.load(name).model in models.available()]


@pytest.mark.parametrize("name", PRICED)
def test_every_command_gives_a_preset_the_same_price(run: Run, name: str) -> None:
    preset = presets.load(name)
    outcome = run("flops", "--model", preset.model, "--preset", name, "--json")
    priced: dict[str, Any] = json.loads(outcome.out)
    (listed,) = (row for row in json.loads(run("presets", "--json").out) if row["name"] == name)
    shown = json.loads(run("presets", name, "--json").out)["cost"]
    assert preset.cost is not None
    assert shown == {key: listed[key] for key in ("tflops", "nfe", "speedup")} == preset.cost.model_dump()
    assert priced["nfe"] == preset.cost.nfe
    assert priced["tflops"] == pytest.approx(preset.cost.tflops, rel=1e-4)
    assert priced["speedup"] == pytest.approx(preset.cost.speedup, rel=1e-4)
    assert outcome.err == ""


def test_no_shipped_preset_is_left_out() -> None:
    assert presets.available() == PRICED


def test_a_preset_of_another_model_is_a_warning_that_names_both(run: Run) -> None:
    outcome = run("flops", "--model", "flux", "--preset", "swd-sdxl-4", "--json")
    assert (outcome.code, outcome.err.count("\n")) == (0, 1)
    assert "'swd-sdxl-4' was made for sdxl, not for flux; its LoRA does not fit" in outcome.err
    assert json.loads(outcome.out)["model"] == "flux"


def test_a_preset_is_priced_with_its_own_guidance(run: Run) -> None:
    priced = json.loads(run("flops", "--model", "sdxl", "--preset", "swd-sdxl-4", "--json").out)
    assert priced["nfe"] == 4
    assert priced["speedup"] > 46
