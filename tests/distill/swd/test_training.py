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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.small_flux import small_flux
from tuner import generate, presets
from tuner.distill.swd import LORA, SwdSettings, distill
from tuner.distill.swd.data import ImageFolder, encode_at_scales
from tuner.distill.swd.draws import Draws
from tuner.distill.swd.losses import patch_mmd
from tuner.distill.swd.networks import denoiser, distillable, features, trainable, velocity, with_lora
from tuner.distill.swd.objective import noised, predict
from tuner.distill.swd.settings import KERNELS, RESAMPLE
from tuner.distill.swd.trainer import Trainer, own_shift
from tuner.errors import UserError
from tuner.models import Conditioning, FlowModel, Size, blueprint, wrap
from tuner.resample import resize
from tuner.sigmas import shift_sigma
from tuner.tiny.scenes import captions

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


@pytest.mark.parametrize(
    ("loss", "kernel"), [("mmd", "linear"), ("mmd", "rbf"), ("patch", "linear"), ("gan", "linear")]
)
def test_each_loss_moves_a_student_by_itself(folder: Path, loss: str, kernel: str) -> None:
    """The critic stands still, so a term that falls is the student's doing; ``dmd`` is in `test_losses`."""
    run = trainer(folder, losses=(loss,), kernel=kernel, steps=20, rate=1e-2, critic_rate=1e-9)
    history = [run.train_step()[loss] for _ in range(20)]
    assert np.mean(history[-5:]) < 0.85 * np.mean(history[:5])


def test_both_kernels_pull_about_as_hard() -> None:
    """Gradients of the embedded model's patch loss, at its first and its last stage, lie within an order."""
    model = distillable(blueprint("tiny").load("cpu"))
    denoiser(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    conditioning = model.encode(captions("train", 4))
    for side in (8, 16):
        real, generated, noise = torch.randn(3, 4, 8, side, side, generator=generator)
        levels_B = torch.full((4,), 0.4)
        with torch.no_grad():
            target_BND = features(model, noised(real, noise, levels_B), levels_B, conditioning)
        norms = {}
        for kernel in KERNELS:
            start = generated.clone().requires_grad_()
            tokens_BND = features(model, noised(start, noise, levels_B), levels_B, conditioning)
            patch_mmd(tokens_BND, target_BND, kernel).backward()
            assert start.grad is not None
            norms[kernel] = start.grad.norm().item()
        assert 0.1 < norms["rbf"] / norms["linear"] < 10


def test_every_image_has_a_noise_level_of_its_own(model: FlowModel) -> None:
    x, conditioning = torch.randn(2, 4, 8, 8), model.encode(PROMPTS)
    twin = with_lora(model, 4, seed=0)
    levels_B = Draws("a key").levels(x, top=0.7, shift=3.0)
    assert levels_B[0] != levels_B[1]
    with torch.no_grad():
        together = velocity(twin, x, levels_B, conditioning)
        for row, level in enumerate(levels_B.tolist()):
            text = {name: rows[row : row + 1] for name, rows in conditioning.items()}
            torch.testing.assert_close(together[row : row + 1], model.velocity(x[row : row + 1], level, text))


@given(top=st.floats(0.1, 1), shift=st.floats(0.5, 9), rows=st.integers(1, 3))
def test_levels_are_those_of_one_batch_and_stay_below_the_shifted_top(top: float, shift: float, rows: int) -> None:
    every = Draws("key").levels(torch.empty(2 * rows, 1), top, shift)
    parts = [Draws("key", rank, 2).levels(torch.empty(rows, 1), top, shift) for rank in range(2)]
    assert torch.equal(torch.cat(parts), every)
    assert (every > 0).all()
    assert every.max() <= shift_sigma(top, shift) + 1e-6


@pytest.mark.parametrize(("name", "size", "shift"), [("tiny", (64, 64), 3.0), ("tiny", (32, 32), 2.0)])
def test_levels_are_shifted_as_the_models_own_grid_is_at_the_size(name: str, size: Size, shift: float) -> None:
    assert own_shift(blueprint(name), size) == pytest.approx(shift, rel=0.01)
    assert own_shift(blueprint("sd3.5-medium"), (512, 512)) == pytest.approx(3, rel=0.01)  # as at every size


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
        features(model, start, torch.tensor([0.5, 0.5]), conditioning).square().mean().backward()
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
