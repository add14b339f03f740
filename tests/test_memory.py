from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tuner.fits
from studies.work.evaluator import Evaluator
from tests.small_pipelines import small_pipeline
from tuner.errors import UserError
from tuner.fits import check_fits
from tuner.memory import needed, network_of, precision_of, weights, working
from tuner.models import ModelOptions, _diffusers, available, blueprint
from tuner.models._diffusers import PipelineBlueprint

GIB = 2**30
Card = Callable[[float], None]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Pretends that there is a GPU of so many GiB."""
    return lambda gib: monkeypatch.setattr(tuner.fits, "gpu_bytes", lambda device: int(gib * GIB))


@pytest.mark.parametrize("name", available())
def test_every_family_says_what_is_beside_its_denoiser(name: str) -> None:
    known = blueprint(name)
    assert isinstance(known, PipelineBlueprint)
    parts = known.parts()
    assert parts.text
    assert parts.autoencoder is not None


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("flux", 0.123 + 4.762),  # CLIP-L and T5 v1.1 XXL, as their model cards have it
        ("sdxl", 0.123 + 0.695),
        ("wan2.1-1.3b", 5.681),
        ("qwen-image", 8.292),
        ("z-image", 4.022),
        ("flux2", 24.011),
        ("sana", 2.614),
    ],
)
def test_text_encoders_have_their_published_sizes(name: str, billions: float) -> None:
    assert sum(network.parameters for network in weights(blueprint(name)).text) / 1e9 == pytest.approx(
        billions, abs=2e-3
    )


@pytest.fixture(scope="module", params=["FluxPipeline", "WanPipeline"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    pipe = small_pipeline(request.param).build()
    folder = tmp_path_factory.mktemp("saved") / "pipe"
    pipe.save_pretrained(folder)
    return pipe, folder


def test_the_weights_of_a_folder_are_those_of_its_pipeline(saved: tuple[Any, Path]) -> None:
    pipe, folder = saved
    counted = weights(blueprint(str(folder)))
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    text = [network_of(part) for name, part in sorted(modules.items()) if name.startswith("text_encoder")]
    assert list(counted.text) == text
    assert counted.autoencoder == network_of(modules["vae"])
    total = sum(part.parameters for part in (*counted.denoisers, *counted.text, counted.autoencoder))
    assert total == sum(values.numel() for part in modules.values() for values in part.parameters())


def test_half_the_precision_is_half_the_memory(saved: tuple[Any, Path]) -> None:
    known = blueprint(str(saved[1]))
    known = known if known.fps is None else known.with_frames(9)
    counted = weights(known)
    assert counted.at_once("float32") == 2 * counted.at_once("bfloat16")
    single, half = (working(known, (64, 64), precision) for precision in ("float32", "bfloat16"))
    assert 0.4 < half.call / single.call < 0.9  # embeddings of positions and times stay in single precision
    assert 0.4 < half.decoding / single.decoding < 0.9


def test_what_moves_less_at_a_time_needs_less(saved: tuple[Any, Path]) -> None:
    counted = weights(blueprint(str(saved[1])))
    placed = [counted.at_once("bfloat16", placement) for placement in (None, "model", "group", "sequential")]
    assert placed == sorted(placed, reverse=True)
    assert counted.at_once("bfloat16", "model") < counted.at_once("bfloat16", freed=True) < placed[0]


@pytest.mark.parametrize("images", [1, 4])
def test_what_a_worker_needs_is_the_most_of_its_phases(images: int) -> None:
    flux = blueprint("flux")
    sizes, beside = weights(flux), working(flux, flux.size, "bfloat16")
    denoiser, text, autoencoder = (
        sizes.denoising("bfloat16"),
        sizes.encoding("bfloat16"),
        sizes.decoding("bfloat16"),
    )
    working_most = max(images * beside.call, beside.decoding)
    found = needed(sizes, beside, "bfloat16", images=images)
    assert found == denoiser + text + autoencoder + working_most
    assert needed(sizes, beside, "bfloat16", freed=True, images=images) == denoiser + autoencoder + working_most
    assert needed(sizes, beside, "bfloat16", "model", images=images) == denoiser + images * beside.call


def test_counted_memory_is_what_an_h100_was_measured_to_take() -> None:
    """Without text encoders and autoencoder. What kernels take beside tensors is not counted."""
    measured = json.loads((Path(__file__).parents[1] / "benchmarks" / "data" / "h100.json").read_text())
    peaks = {row["name"]: row["peak_gib"] for row in measured["rows"] if row.get("peak_gib")}
    flux = blueprint("flux")
    sizes, beside = weights(flux), working(flux, flux.size, "bfloat16")
    for images in (1, 4):
        counted = (sizes.denoising("bfloat16") + images * beside.call) / GIB
        assert counted == pytest.approx(peaks[f"flux: one step at scale 1, batch of {images}"], rel=0.02)
    wan = blueprint("wan2.1-1.3b")  # two passes, one after the other
    counted = weights(wan).denoising("bfloat16") + working(wan, wan.size, "bfloat16").call
    assert counted / GIB == pytest.approx(peaks["wan2.1-1.3b: one step at scale 1"], rel=0.02)


def test_flux_does_not_fit_24_gb_and_the_message_says_what_makes_it_fit(card: Card) -> None:
    card(23.6)
    flux, options = blueprint("flux"), ModelOptions()
    with pytest.raises(UserError) as refused:
        check_fits(flux, options, "cuda")
    said = str(refused.value)
    assert "\n" not in said
    assert "needs 31.4 GiB of GPU memory for its bfloat16 weights, and 23.6 GiB are there" in said
    sizes, beside = weights(flux), working(flux, flux.size, "bfloat16")
    for text, update in tuner.fits._CHOICES.items():
        chosen = options.model_copy(update=update)
        most = needed(sizes, beside, precision_of(chosen, "cuda"), chosen.offload, bool(chosen.free_text_encoders))
        assert (f"{text} ({most / GIB:.1f})" in said) == (most <= 23.6 * GIB), text
    assert "--quantize nf4 (10.7)" in said


@pytest.mark.parametrize("update", tuner.fits._CHOICES.values())
def test_a_load_that_was_recommended_is_not_refused(card: Card, update: dict[str, Any]) -> None:
    flux, options = blueprint("flux"), ModelOptions(**update)
    precision, freed = precision_of(options, "cuda"), bool(options.free_text_encoders)
    least = weights(flux).at_once(precision, options.offload, freed)
    card(least / GIB + 1e-6)
    check_fits(flux, options, "cuda")
    card(least / GIB - 1e-6)
    with pytest.raises(UserError, match="GiB"):
        check_fits(flux, options, "cuda")


def test_two_workers_on_a_gpu_have_half_of_it_each(card: Card) -> None:
    card(48)
    check_fits(blueprint("flux"), ModelOptions(), "cuda")
    with pytest.raises(UserError, match=r"24\.0 GiB are there"):
        check_fits(blueprint("flux"), ModelOptions(), "cuda", share=0.5)


@pytest.mark.parametrize(("gib", "listed"), [(23.6, False), (9.0, True)])
def test_two_options_are_named_where_neither_is_enough_alone(card: Card, gib: float, listed: bool) -> None:
    card(gib)
    with pytest.raises(UserError) as refused:
        check_fits(blueprint("flux"), ModelOptions(), "cuda")
    assert ("--quantize nf4 --offload model (" in str(refused.value)) is listed


def test_where_nothing_helps_it_says_so(card: Card) -> None:
    card(1.0)
    with pytest.raises(UserError, match="no option makes it fit; use a larger GPU"):
        check_fits(blueprint("flux"), ModelOptions(), "cuda")


def test_nothing_is_refused_on_a_cpu_or_over_several_gpus(card: Card) -> None:
    check_fits(blueprint("flux"), ModelOptions(), "cpu")
    card(1.0)
    check_fits(blueprint("flux"), ModelOptions(device_map="balanced"), "cuda")


def test_a_load_is_refused_before_it_starts(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card(1e-6)
    monkeypatch.setattr(_diffusers, "load_pipeline", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UserError, match="GiB of GPU memory"):
        Evaluator.load("tiny", [], "cuda")
