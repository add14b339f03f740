"""How weights come to a device, with fakes where that is a GPU."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import pytest
import torch

from studies import SearchSettings
from studies.work.encodings import Encodings
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from studies.workers.start import start_workers
from tests.small_pipelines import families, shortened, small_pipeline
from tuner.errors import UserError
from tuner.generation import generate
from tuner.models import FlowModel, ModelOptions, _loading, blueprint, wrap
from tuner.models._stored import TEXT_ENCODERS
from tuner.sampling import sample

PROMPTS = ("a red fox", "a blue circle above a red square", "fox")
FREED = ModelOptions(free_text_encoders=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux") / "pipe"
    small_pipeline("FluxPipeline").build().save_pretrained(folder)
    return folder


def drawn(model: FlowModel, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return sample(model, model.blueprint.plain(2, size), model.encode(PROMPTS[:2]), [3, 4], size)


@pytest.mark.parametrize("pipeline_class", sorted(families()))
def test_text_that_is_encoded_first_gives_the_same_bits(pipeline_class: str, tmp_path: Path) -> None:
    small = small_pipeline(pipeline_class)
    pipe = small.build()
    pipe.save_pretrained(tmp_path / "pipe")
    known = shortened(blueprint(str(tmp_path / "pipe")), small)
    size, prompts = small.SIZES[0], list(PROMPTS[:2])
    schedule = known.plain(2, size)
    whole = known.load("cpu")
    expected = sample(whole, schedule, whole.encode(prompts), [3, 4], size)
    halved = known.load("cpu", options=FREED)
    network = known.denoiser
    assert getattr(halved.pipe, network) is None
    text = halved.encode(prompts)
    halved.free_text_encoders()
    assert getattr(halved.pipe, network) is not None
    assert not any(part is not None for name, part in halved.pipe.components.items() if name in TEXT_ENCODERS)
    assert sample(halved, schedule, text, [3, 4], size).equal(expected)


def test_a_generation_frees_the_text_encoders_before_it_draws(folder: Path) -> None:
    known = blueprint(str(folder))
    schedule = known.plain(2, (32, 32))
    plain = generate(known.load("cpu"), PROMPTS[0], schedule, 1, 32, 32).images[0]
    freed = generate(known.load("cpu", options=FREED), PROMPTS[0], schedule, 1, 32, 32, free_text_encoders=True)
    assert freed.images[0].tobytes() == plain.tobytes()


def test_a_part_of_a_chunk_is_its_rows(folder: Path) -> None:
    model = blueprint(str(folder)).load("cpu")
    whole = model.encode(PROMPTS)
    encodings = Encodings(model, [PROMPTS, PROMPTS[:1]])
    for part in (slice(0, 3), slice(1, 3), slice(2, 3)):
        for name, rows in encodings.of(PROMPTS[part], "cpu").items():
            assert rows.equal(whole[name][part])
    with pytest.raises(KeyError, match="nobody said"):
        encodings.of(("another",), "cpu")


def test_workers_score_the_same_with_freed_text_encoders(tmp_path: Path) -> None:
    known = blueprint("tiny")
    task = Task(known.plain(2), ("red circle on plain black", "blue ring on plain white"), (1, 2), known.size)

    def scores(options: ModelOptions) -> Any:
        settings = SearchSettings(model="tiny", budget="3x", out=str(tmp_path), workers=0, options=options)
        workers = start_workers(settings, ("clip:tiny",), texts=[task.prompts])
        workers.submit(task)
        return workers.next()[1]

    freed = scores(FREED)
    assert isinstance(freed, ChunkResult)
    assert freed.scores == scores(ModelOptions()).scores


@pytest.mark.parametrize("other", [{"lora": "mine.safetensors"}, {"offload": "model"}])
def test_what_moves_or_changes_text_encoders_does_not_go_with_it(folder: Path, other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--free-text-encoders does not go with --"):
        blueprint(str(folder)).load("cpu", options=FREED.model_copy(update=other))


@pytest.mark.parametrize("options", [ModelOptions(), ModelOptions(offload="auto")])
def test_weights_go_to_the_gpu_directly(
    folder: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a fake that reads to the CPU what it is told to read to the GPU."""
    read = diffusers.FluxPipeline.from_pretrained
    asked: list[dict[str, Any]] = []

    def fake(source: str, **how: Any) -> Any:
        asked.append(how)
        return read(source, **{name: value for name, value in how.items() if name != "device_map"})

    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(diffusers.FluxPipeline, "from_pretrained", fake)
    monkeypatch.setattr(diffusers.FluxPipeline, "to", lambda *_: pytest.fail("moved by way of this machine"))
    _loading.load_pipeline(blueprint(str(folder)), "cuda", "bfloat16", options)
    assert [how["device_map"] for how in asked] == ["cuda"]
    assert [path.name.endswith("-loads.lock") for path in tmp_path.iterdir()] == [True]


def _load_slowly(home: str, entered: Any) -> None:
    tempfile.tempdir = home
    with _loading._one_at_a_time("cuda"):
        entered.append(("in", time.monotonic()))
        time.sleep(0.2)
        entered.append(("out", time.monotonic()))


def test_workers_of_a_machine_load_one_after_the_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        entered = manager.list()
        workers = [context.Process(target=_load_slowly, args=(str(tmp_path), entered)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [event for event, _ in entered] == ["in", "out"] * 3


def test_images_are_encoded_where_offloaded_weights_come_to(folder: Path) -> None:
    """Weights of a module that accelerate offloads are on the meta device until they are used."""
    model = blueprint(str(folder)).load("cpu")
    images = model.decode(model.noise((32, 32), [1, 2]))
    expected = model.encode_images(images)
    accelerate.cpu_offload(model.pipe.vae, torch.device("cpu"))
    assert model.pipe.vae.device.type == "meta"
    assert model.encode_images(images).equal(expected)


def test_layers_that_come_in_groups_draw_the_same(folder: Path) -> None:
    plain, grouped = (blueprint(str(folder)).load("cpu") for _ in range(2))
    _loading.offload_groups(grouped.pipe, "cpu")
    assert drawn(grouped).equal(drawn(plain))
    images = plain.decode(drawn(plain))
    assert [image.tobytes() for image in grouped.decode(drawn(grouped))] == [image.tobytes() for image in images]
    assert grouped.encode_images(images).equal(plain.encode_images(images))


class Tight:
    """A pipeline whose network runs out of memory until components are offloaded."""

    def __init__(self, model: Any):
        self.offloaded: list[str] = []
        network = model.pipe.transformer
        forward = network.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.offloaded:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(*args, **kwargs)

        network.forward = call
        model.pipe.enable_model_cpu_offload = lambda device: self.offloaded.append(device)


@pytest.mark.parametrize("offload", [None, "auto"])
def test_what_does_not_fit_is_offloaded_where_that_is_allowed(offload: Any, folder: Path) -> None:
    model = blueprint(str(folder)).load("cpu")
    model.may_offload = offload == "auto"
    tight = Tight(model)
    task = Task(model.blueprint.plain(2, (32, 32)), PROMPTS, (1, 2, 3), (32, 32))
    outcome = Evaluator(model, []).evaluate(task)
    if offload is None:
        assert isinstance(outcome, Failure)
        assert outcome.transient
        assert "does not fit into memory" in outcome.reason
        assert tight.offloaded == []
    else:
        assert isinstance(outcome, ChunkResult)
        assert tight.offloaded == ["cpu"]
        assert not model.make_room()


def test_only_auto_may_offload_later(folder: Path) -> None:
    assert not wrap(small_pipeline("FluxPipeline").build()).make_room()
    assert not blueprint(str(folder)).load("cpu").make_room()
