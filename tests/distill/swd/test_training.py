"""The whole training on a FLUX of two small random blocks and a few images: seconds on a CPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from tests.small_flux import small_flux
from tuner import generate, presets
from tuner.distill.swd import LORA, SwdSettings, distill
from tuner.distill.swd.data import ImageFolder, encode_at_scales
from tuner.distill.swd.draws import Draws
from tuner.distill.swd.networks import denoiser, features, trainable, with_lora
from tuner.distill.swd.objective import predict
from tuner.distill.swd.settings import RESAMPLE
from tuner.distill.swd.trainer import Trainer
from tuner.errors import UserError
from tuner.models import Conditioning, FlowModel, wrap
from tuner.resample import resize

PROMPTS = ("a red fox", "a blue circle")
SMALL = {"scales": (0.5, 1.0), "sigmas": (1.0, 0.7, 0.0), "batch": 2, "rank": 4, "critic_steps": 1}


@pytest.fixture
def model() -> FlowModel:
    return small_model()


def small_model() -> FlowModel:
    model = wrap(small_flux())
    model.blueprint = replace(model.blueprint, height=32, width=32)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = []
    for number, prompt in enumerate(PROMPTS):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": prompt}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def settings(folder: Path, **options: Any) -> SwdSettings:
    return SwdSettings(model="small", out=folder / "run", **{"steps": 4, **SMALL, **options})


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(settings(folder, **options), small_model(), ImageFolder(folder), Accelerator(cpu=True))


def distance_to_data(model: FlowModel, folder: Path) -> float:
    """Mean squared distance of the student's clean-image predictions from the two images, at both stages."""
    data = ImageFolder(folder)
    conditioning = model.encode(PROMPTS)
    noise = torch.Generator().manual_seed(1)
    total = 0.0
    with torch.no_grad():
        for real, sigma in zip(
            encode_at_scales(model, data.pixels([0, 1], (32, 32)), [(16, 16), (32, 32)]), (1.0, 0.7), strict=True
        ):
            start = (1 - sigma) * real + sigma * torch.randn(real.shape, generator=noise)
            total += (predict(model, start, sigma, conditioning) - real).square().mean().item()
    return total


@pytest.mark.parametrize("losses", [("mmd",), ("mmd", "dmd"), ("mmd", "gan")])
def test_the_student_approaches_the_images_it_is_shown(folder: Path, losses: tuple[str, ...]) -> None:
    run = trainer(folder, losses=losses, steps=60, rate=1e-2, critic_rate=1e-3)
    before = distance_to_data(run.student, folder)
    history = [run.train_step() for _ in range(60)]
    first, last = (np.mean([step["mmd"] for step in part]) for part in (history[:10], history[-10:]))
    assert last < 0.85 * first
    assert distance_to_data(run.student, folder) < 0.9 * before


def test_the_critic_learns_what_the_student_makes(folder: Path) -> None:
    run = trainer(folder, losses=("dmd", "gan"), steps=60, rate=1e-6, critic_rate=1e-2)
    history = [run.train_step() for _ in range(60)]
    for term in ("fake", "discriminator"):
        first, last = (np.mean([step[term] for step in part]) for part in (history[:10], history[-10:]))
        assert last < 0.97 * first


@pytest.mark.parametrize("starts", ["data", "student"])
def test_the_next_stage_starts_from_the_data_or_from_what_the_student_made(
    folder: Path, starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(folder, losses=("mmd",), starts=starts, sigmas=(1.0, 1e-4, 0.0))
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []  # start and prediction of each stage

    def watched(model: FlowModel, x: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        calls.append((x, predict(model, x, sigma, conditioning)))
        return calls[-1][1]

    monkeypatch.setattr("tuner.distill.swd.trainer.predict", watched)
    run.train_step()
    (_, made), (start, _) = calls
    assert not start.requires_grad  # no gradient from one stage to the one before
    pixels = ImageFolder(folder).pixels(Draws("0/0/student").images(2, 2), (32, 32))
    before = made if starts == "student" else encode_at_scales(run.student, pixels, [(16, 16)])[0]
    enlarged = resize(before, (start.shape[-2], start.shape[-1]), RESAMPLE)
    torch.testing.assert_close(start, enlarged, rtol=0, atol=0.01)


def test_an_interrupted_run_ends_at_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole = trainer(folder, losses=("mmd", "dmd", "gan"))
    for _ in range(4):
        whole.train_step()
    start = trainer(folder, losses=("mmd", "dmd", "gan"))
    for _ in range(2):
        start.train_step()
    torch.save(start.state(), tmp_path / "checkpoint.pt")
    rest = trainer(folder, losses=("mmd", "dmd", "gan"))
    rest.load_state(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for _ in range(2):
        rest.train_step()
    for ours, theirs in zip(trainable(denoiser(rest.student)), trainable(denoiser(whole.student)), strict=True):
        assert torch.equal(ours, theirs)


class _Process:
    """One of two processes as the trainer sees it; ``reduce`` averages with what the other one gave."""

    device = torch.device("cpu")
    num_processes = 2

    def __init__(self, rank: int, meet: Any):
        self.process_index = rank
        self._meet = meet

    def reduce(self, value: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "mean"
        mean: torch.Tensor = self._meet(self.process_index, value)
        return mean


def test_two_processes_train_what_one_does(folder: Path) -> None:
    barrier, given = threading.Barrier(2), {}

    def meet(rank: int, value: torch.Tensor) -> torch.Tensor:
        given[rank] = value
        barrier.wait()
        mean = (given[0] + given[1]) / 2
        barrier.wait()
        return mean

    one = trainer(folder, losses=("mmd", "dmd"), batch=2)
    pair = [
        Trainer(
            settings(folder, losses=("mmd", "dmd"), batch=1),
            small_model(),
            ImageFolder(folder),
            _Process(rank, meet),  # type: ignore[arg-type]
        )
        for rank in range(2)
    ]
    one.train_step()
    threads = [threading.Thread(target=member.train_step) for member in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs, alone in zip(*(trainable(denoiser(member.student)) for member in (*pair, one)), strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, alone, rtol=0, atol=2e-6)


def test_a_lora_shares_the_weights_starts_at_nothing_and_leaves_the_model_alone(model: FlowModel) -> None:
    x, conditioning = torch.randn(2, 4, 8, 8), model.encode(PROMPTS)
    names = set(denoiser(model).state_dict())
    twin = with_lora(model, 4, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(twin.velocity(x, 0.5, conditioning), model.velocity(x, 0.5, conditioning))
    pointers = {p.data_ptr() for p in denoiser(model).parameters()}
    assert all(p.requires_grad or p.data_ptr() in pointers for p in denoiser(twin).parameters())
    assert set(denoiser(model).state_dict()) == names


def test_gradient_checkpointing_changes_no_gradient(model: FlowModel) -> None:
    x, conditioning = torch.randn(2, 4, 8, 8), model.encode(PROMPTS)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            denoiser(model).enable_gradient_checkpointing()
        start = x.clone().requires_grad_()
        features(model, start, 0.5, conditioning).square().mean().backward()
        gradients.append(start.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


class _Recorder:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.drawn: list[int] = []

    def phase(self, name: str, done: int, total: int) -> None:
        pass

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def images(self, step: int, images: Sequence[Image.Image], prompts: Sequence[str]) -> None:
        self.drawn.append(len(images))


def test_a_run_leaves_a_preset_that_draws_the_students_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = small_model()
    monkeypatch.setattr(type(teacher.blueprint), "load", lambda *_, **__: teacher)
    monkeypatch.setattr("tuner.distill.swd.run.blueprint", lambda _: teacher.blueprint)
    wanted = SwdSettings(
        model="small", out=tmp_path / "run", losses=("mmd",), steps=3, save_every=2, rate=1e-2, **SMALL
    )
    watched = _Recorder()
    path = distill(wanted, str(folder), (), PROMPTS, watched, cpu=True)
    assert watched.steps == [1, 2, 3]
    assert watched.drawn == [2, 2]
    preset = presets.load(path)
    assert preset.model_options is not None
    assert preset.model_options.lora == str((tmp_path / "run" / LORA).resolve())
    with_it = generate(teacher.pipe, PROMPTS[0], preset).images[0]
    without = generate(teacher, PROMPTS[0], preset.schedule).images[0]
    assert with_it.tobytes() != without.tobytes()
    pipe = small_flux()  # and it loads in diffusers alone
    pipe.load_lora_weights(tmp_path / "run", weight_name=LORA)
    assert generate(_as(teacher, pipe), PROMPTS[0], preset.schedule).images[0].tobytes() == with_it.tobytes()
    with pytest.raises(UserError, match="--resume"):
        distill(wanted, str(folder), (), PROMPTS, watched, cpu=True)
    assert distill(wanted, str(folder), (), PROMPTS, watched, resume=True, cpu=True) == path
    with pytest.raises(UserError, match="other settings"):
        distill(wanted.model_copy(update={"steps": 9}), str(folder), (), PROMPTS, watched, resume=True, cpu=True)


def _as(model: FlowModel, pipe: Any) -> FlowModel:
    other = wrap(pipe)
    other.blueprint = model.blueprint
    return other


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"scales": (1.0, 0.5)}, "must not fall"),
        ({"sigmas": (1.0, 0.0)}, "a 0 at the end"),
        ({"scales": (0.25, 0.5)}, "scale 1"),
        ({"sigmas": (0.9, 0.5, 0.0)}, "first sigma must be 1"),
    ],
)
def test_settings_say_which_rule_they_break(options: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule):
        settings(tmp_path, **options)


@pytest.mark.parametrize(("metadata", "rule"), [("", "names no image"), ('{"file_name": "x.png"}', "readable")])
def test_a_bad_data_folder_is_the_users_to_mend(metadata: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(metadata)
    with pytest.raises(UserError, match=rule):
        ImageFolder(tmp_path)
