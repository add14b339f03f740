"""Decoding in tiles, which turns itself on where decoding takes much memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

import studies
import studies.engine.search
import studies.plan.plan
import tuner.fits
from studies import SearchSettings, search
from studies.evaluate.plan import make_eval_plan
from studies.evaluate.settings import EvalSettings
from studies.plan.plan import make_plan
from studies.workers.executors import LocalExecutor
from studies.workers.start import start_workers
from tests.small_pipelines import small_pipeline
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import activations
from tuner.errors import UserError
from tuner.fits import TILED_ABOVE, with_tiling
from tuner.memory import working
from tuner.models import Blueprint, FlowModel, ModelOptions, available, blueprint
from tuner.models._diffusers import PipelineBlueprint

FRAMES = ModelOptions(frames=5)
LARGE, SMALL = (64, 64), (32, 32)
_TILE, _STRIDE = 32, 24


@pytest.fixture(autouse=True)
def small_tiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tiles of 32 pixels, which are 256 in the class itself; what is counted with them stays here."""
    monkeypatch.setenv("TUNER_CACHE_HOME", str(folder.parent / "counts"))
    monkeypatch.setattr(
        AutoencoderKLWan,
        "__init__",
        made_with(
            AutoencoderKLWan.__init__,
            lambda vae: vars(vae).update(
                dict.fromkeys(("tile_sample_min_height", "tile_sample_min_width"), _TILE)
                | dict.fromkeys(("tile_sample_stride_height", "tile_sample_stride_width"), _STRIDE)
            ),
        ),
    )


def made_with(made: Any, change: Callable[[Any], object]) -> Any:
    @functools.wraps(made)
    def init(self: Any, *arguments: Any, **values: Any) -> None:
        made(self, *arguments, **values)
        change(self)

    return init


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan") / "pipe"
    small_pipeline("WanPipeline").build().save_pretrained(folder)
    return folder


@pytest.fixture
def known(folder: Path) -> PipelineBlueprint:
    found = blueprint(str(folder)).with_frames(5)
    assert isinstance(found, PipelineBlueprint)
    return found


@pytest.fixture
def low(known: PipelineBlueprint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the threshold to just below what the large size takes."""
    monkeypatch.setattr(tuner.fits, "_LARGEST_UNASKED", SMALL[0] * SMALL[1])
    monkeypatch.setattr(tuner.fits, "TILED_ABOVE", working(known, LARGE, "bfloat16").decoding - 1)


def settings(folder: Path, out: Path, options: ModelOptions = FRAMES, size: Any = LARGE) -> SearchSettings:
    return SearchSettings(
        model=str(folder),
        budget="3x",
        objectives=("sharpness",),
        size=size,
        out=str(out),
        options=options,
        workers=0,
    )


def test_published_models_that_decode_in_tiles_by_themselves() -> None:
    beside = {}
    for name in available():
        known = blueprint(name)
        tiled = bool(with_tiling(known, ModelOptions(), known.size).tiling)
        whole = working(known, known.size, "bfloat16").decoding
        assert tiled == (whole > TILED_ABOVE), name
        if tiled:
            beside[name] = whole / working(known, known.size, "bfloat16", tiled=True).decoding
    assert set(beside) == {"cogvideox", "hunyuan-video", "hunyuan-video-1.5"}
    assert min(beside.values()) > 3


def test_what_a_user_asked_for_stays(known: PipelineBlueprint, low: None) -> None:
    def found(size: Any, **options: Any) -> bool | None:
        return with_tiling(known, ModelOptions(**options), size).tiling

    assert [found(LARGE), found(LARGE, tiling=False), found(LARGE, tiling=True)] == [True, False, True]
    assert [found(SMALL), found(SMALL, tiling=False), found(SMALL, tiling=True)] == [None, False, True]


def test_an_autoencoder_without_tiles_is_left_alone(
    known: PipelineBlueprint, low: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_CACHE_HOME", str(tmp_path))
    init = made_with(AutoencoderKLWan.__init__, lambda vae: vars(vae).pop("use_tiling"))
    monkeypatch.setattr(AutoencoderKLWan, "__init__", init)
    assert with_tiling(known, ModelOptions(), LARGE).tiling is None


def test_counted_tiles_bound_what_tiles_take(known: PipelineBlueprint) -> None:
    part = known.parts().autoencoder
    assert part is not None
    with torch.device("meta"):
        network = part.build().to(torch.bfloat16)
        network.enable_tiling()
    live = activations._Live()
    with activations._of_type("bfloat16"), live:
        known.meta_decode(network, LARGE)
    counted = activations.decoding_bytes(known, part, LARGE, "bfloat16", tiled=True)
    assert live.most <= counted < working(known, LARGE, "bfloat16").decoding
    small = [activations.decoding_bytes(known, part, SMALL, "bfloat16", tiled) for tiled in (False, True)]
    assert small[0] == small[1]


def test_the_identity_of_a_study_names_what_it_came_to(folder: Path, tmp_path: Path, low: None) -> None:
    def plan(size: Any, **options: Any) -> Any:
        return make_plan(settings(folder, tmp_path, ModelOptions(frames=5, **options), size))

    large, without, small = plan(LARGE), plan(LARGE, tiling=False), plan(SMALL)
    assert small.identity["options"] == without.identity["options"] == {"frames": 5}
    assert large.identity == without.identity | {"options": {"frames": 5, "tiling": True}}
    assert large.made_by != without.made_by == small.made_by


@pytest.mark.parametrize(("size", "tiled"), [(LARGE, True), (SMALL, False)])
def test_workers_of_searches_and_evaluations_decode_as_the_plan_says(
    folder: Path, tmp_path: Path, low: None, size: Any, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = (
        make_plan(settings(folder, tmp_path, size=size)),
        make_eval_plan(
            EvalSettings(
                model=str(folder), presets=("plain:2",), objectives=("sharpness",), size=size, options=FRAMES
            )
        ),
    )
    for plan in plans:
        executor = start_workers(plan.settings.model_copy(update={"workers": 0}), ())
        assert isinstance(executor, LocalExecutor)
        model: Any = executor._load()._model
        assert model.pipe.vae.use_tiling is tiled

    def stop(chosen: Any, *_: Any, **__: Any) -> Any:
        raise UserError(f"tiling {chosen.options.tiling}")

    monkeypatch.setattr(studies.engine.search, "start_workers", stop)
    with pytest.raises(UserError, match=f"tiling {tiled or None}"):
        search(settings(folder, tmp_path, size=size))


def test_small_images_are_the_same_with_and_without_tiles(folder: Path) -> None:
    drawn = {}
    for tiling in (None, True):
        model = blueprint(str(folder)).with_frames(5).load("cpu", options=ModelOptions(tiling=tiling))
        drawn[tiling] = {size: frames(model, size) for size in (SMALL, LARGE)}
    assert drawn[None][SMALL] == drawn[True][SMALL]
    assert drawn[None][LARGE] != drawn[True][LARGE]


def frames(model: FlowModel, size: Any) -> list[bytes]:
    (video,) = model.decode(model.noise(size, [1]))
    assert isinstance(video, list)
    return [frame.tobytes() for frame in video]


def tiles_by_itself(known: Blueprint, options: ModelOptions, size: Any) -> ModelOptions:
    return options if options.tiling is not None else options.model_copy(update={"tiling": True})


def test_a_study_that_began_without_tiles_goes_on_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)
    begun = toy_settings(tmp_path, trials=2)
    with pytest.raises(KeyboardInterrupt):
        search(begun, executor=Counting(interrupt_after=5))
    monkeypatch.setattr(studies.plan.plan, "with_tiling", tiles_by_itself)
    new = toy_settings(tmp_path, trials=2, study="new")
    with pytest.raises(KeyboardInterrupt):
        search(new, executor=Counting(interrupt_after=5))
    for one, identity in ((begun, None), (new, {"tiling": True})):
        executor = Counting()
        assert search(one, executor=executor, resume=True).pick
        assert studies.open_study(str(tmp_path), one.name).identity.get("options") == identity
    with pytest.raises(UserError, match="another `options`"):
        search(begun.model_copy(update={"options": ModelOptions(tiling=True)}), resume=True)
