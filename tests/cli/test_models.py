from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import studies
import tuner.fits
from tests.cli.conftest import Outcome
from tests.small_pipelines import small_pipeline
from tuner import models, presets
from tuner.errors import UserError
from tuner.models import ModelOptions, _loading
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

Run = Callable[..., Outcome]


def rows_of(table: str) -> list[list[str]]:
    """Reads the rows of a printed table, whatever its columns' widths."""
    return [[cell.strip() for cell in line.split("│")] for line in table.splitlines() if line.startswith("│")]


def test_every_model_is_listed_with_its_defaults(run: Run) -> None:
    rows = json.loads(run("models", "--json").out)
    assert [row["model"] for row in rows] == models.available()
    (flux,) = json.loads(run("models", "flux", "--json").out)
    assert (flux["size"], flux["steps"], flux["guidance"], flux["passes"]) == ("1024x1024", 50, 3.5, 1)


def test_the_cost_of_a_model_is_that_of_its_baseline(run: Run) -> None:
    (tiny,) = json.loads(run("models", "tiny", "--cost", "--json").out)
    assert tiny["TFLOPs per image"] == pytest.approx(tiny["steps"] * tiny["passes"] * tiny["TFLOPs per pass"])


def test_the_memory_of_a_model_is_that_of_its_pipeline(run: Run, flux_pipe: Any, tmp_path: Path) -> None:
    flux_pipe.save_pretrained(tmp_path / "pipe")
    rows = json.loads(run("models", str(tmp_path / "pipe"), "--memory", "--json").out)
    found = {row["precision"]: row for row in rows}
    sizes = {name: values.numel() for name, values in flux_pipe.transformer.named_parameters()}
    count = sum(sizes.values())
    matrices = [module.weight for module in flux_pipe.transformer.modules() if isinstance(module, torch.nn.Linear)]
    rest = 2 * (count - sum(matrix.numel() for matrix in matrices))
    four_bit = sum(m.numel() / 2 + 4 * -(-m.numel() // 64) for m in matrices)
    eight_bit = sum(m.numel() + 4 * len(m) for m in matrices)
    bytes_of = {"float32": 4 * count, "bfloat16": 2 * count, "int8": rest + eight_bit, "nf4": rest + four_bit}
    assert {row["parameters"] for row in rows} == {count}
    for precision, expected in bytes_of.items():
        assert found[precision]["denoiser"] * 2**30 == pytest.approx(expected)
    encoders = [flux_pipe.text_encoder, flux_pipe.text_encoder_2]
    text = sum(values.numel() for encoder in encoders for values in encoder.parameters())
    vae = sum(values.numel() for values in flux_pipe.vae.parameters())
    half = found["bfloat16"]
    assert half["text"] * 2**30 == 2 * text
    assert half["needs"] * 2**30 == pytest.approx(
        2 * (count + text + vae) + 2**30 * max(half["call"], half["decode"])
    )


def test_two_networks_weigh_twice_and_one_by_one_once(run: Run) -> None:
    rows = json.loads(run("models", "wan2.1-14b", "wan2.2", "--memory", "--json").out)
    one, two = (row for row in rows if row["precision"] == "bfloat16")
    assert two["parameters"] == 2 * one["parameters"] == 2 * 14_288_491_584
    beside = [row["call"] for row in (one, two)]
    assert two["offload model"] - beside[1] == pytest.approx(one["offload model"] - beside[0])


def test_the_memory_of_all_models_fits_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    table = run("models", "--memory").out
    assert max(map(len, table.splitlines())) <= 80
    rows = rows_of(table)
    assert len(rows) == 4 * len(models.available())
    assert all(len(row) > 3 and all(row[1:-1]) for row in rows)  # no cell goes on in another line


def test_the_documented_table_is_what_the_command_prints(run: Run) -> None:
    page = (Path(models.__file__).parents[2] / "docs" / "models.md").read_text()
    documented = rows_of(page.split("```")[1])
    printed = rows_of(run("models", "--wide").out)
    assert len(documented) > 10
    assert [row for row in documented if row not in printed] == [], "paste the output of `tuner models` again"


@pytest.fixture(scope="module")
def guided_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guided")
    small_pipeline("StableDiffusion3Pipeline").build().save_pretrained(folder / "pipe")
    preset = Preset(
        name="guided",
        model=str(folder / "pipe"),
        source="a test",
        height=32,
        width=32,
        schedule=Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),)),
        model_options=ModelOptions(negative_prompt="a blue circle"),
    )
    return presets.save(preset, folder / "guided.yaml")


def test_sample_takes_the_models_options(run: Run, guided_preset: Path, tmp_path: Path) -> None:
    def image(*options: str) -> bytes:
        output = tmp_path / "fox.png"
        assert run("sample", str(guided_preset), "a red fox", "-o", str(output), *options).code == 0
        return Image.open(output).tobytes()

    plain = image()
    assert image("--negative-prompt", "a blue circle") == plain  # the preset's own
    assert image("--guidance", "9") != plain
    assert image("--negative-prompt", "square square square") != plain


def test_search_hands_the_models_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(settings: Any, **_: Any) -> None:
        seen.append(settings.options)
        raise UserError("far enough.")

    monkeypatch.setattr(studies, "search", stop)
    arguments = ("--guidance", "5", "--lora", "me/mine:0.5", "--dtype", "float16", "--offload", "model")
    outcome = run("search", "--model", "sd3.5-medium", "--budget", "3x", *arguments)
    assert "far enough" in outcome.err
    assert seen == [ModelOptions(guidance=5, lora="me/mine:0.5", dtype="float16", offload="model")]


def test_tiles_are_turned_on_and_off_by_hand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(settings: Any, **_: Any) -> None:
        seen.append(settings.options.tiling)
        raise UserError("far enough.")

    monkeypatch.setattr(studies, "search", stop)
    for option in (("--tiling",), ("--no-tiling",), ()):
        run("search", "--model", "hunyuan-video", "--budget", "3x", *option)
    assert seen == [True, False, None]


def test_sample_decodes_in_tiles_by_itself(
    run: Run, guided_preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def tiles(known: Any, options: ModelOptions, size: Any) -> ModelOptions:
        seen.append((known.name, size))
        return options.model_copy(update={"tiling": True})

    monkeypatch.setattr(tuner.fits, "with_tiling", tiles)
    monkeypatch.setattr(_loading, "_decode_in_tiles", lambda pipe: seen.append(type(pipe.vae).__name__))
    assert run("sample", str(guided_preset), "a red fox", "-o", str(tmp_path / "fox.png")).code == 0
    assert seen == [(str(guided_preset.parent / "pipe"), (32, 32)), "AutoencoderKL"]


def test_options_that_a_model_cannot_use_are_one_line(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "sample", "bottleneck-flux-3x", "fox", "-o", str(tmp_path / "a.png"), "--negative-prompt", "blur"
    )
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "makes no pass with a negative prompt" in outcome.err


def test_text_is_not_encoded_twice_when_its_encoders_are_freed(run: Run, tmp_path: Path) -> None:
    arguments = ("sample", "plain:2", "red circle", "--model", "tiny", "--free-text-encoders")
    assert run(*arguments, "-o", str(tmp_path / "one.png")).code == 0
    outcome = run(*arguments, "--seeds", "2", "-o", str(tmp_path / "two.png"))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "several images are asked for" in outcome.err
