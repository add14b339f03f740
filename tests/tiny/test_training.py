"""Few-step runs of the training command's parts; what they train is worthless, how they run is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from tuner.tiny.scenes import VOCABULARY, captions
from tuner.tiny.training import autoencoder, denoiser
from tuner.tiny.training.__main__ import main
from tuner.tiny.training.autoencoder import build_autoencoder, normalise, train_autoencoder
from tuner.tiny.training.data import SIZES, rendered, to_float, to_uint8
from tuner.tiny.training.denoiser import Batch, Denoiser, empty_prompts, pack, train_denoiser
from tuner.tiny.training.export import export_pipeline
from tuner.tiny.training.guidance import GUIDANCE, distil_guidance, guided_velocity
from tuner.tiny.training.latents import encode_scenes, load_latents, token_ids
from tuner.tiny.training.networks import TEXT_TOKENS, build_scheduler, build_tokenizer
from tuner.tiny.training.optim import Muon, Optimisers, orthogonal
from tuner.tiny.training.run import Settings, Worker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(work=tmp_path, minutes=10, steps=2, workers=1, seed=3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, few scenes, and no compilation, which alone would take minutes."""
    monkeypatch.setattr(autoencoder, "SCENES", 8)
    monkeypatch.setattr(autoencoder, "BATCH", 2)
    monkeypatch.setattr(autoencoder, "REPORT_SCENES", 4)
    monkeypatch.setattr(denoiser, "SIZES", dict.fromkeys(SIZES, (1 / 3, 4, 2.0)))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)


def trained_autoencoder(settings: Settings) -> None:
    settings.work.mkdir(exist_ok=True)
    train_autoencoder(Worker(settings, 0, "autoencoder"))


def test_from_nothing_to_a_pipeline_that_samples(small: None, settings: Settings) -> None:
    trained_autoencoder(settings)
    encode_scenes(Worker(settings, 0, "latents"), scenes=12)
    train_denoiser(Worker(settings, 0, "denoiser"))
    distil_guidance(Worker(settings, 0, "guidance"))
    export_pipeline(settings.work, "guidance", settings.work / "pipeline", torch.float32)

    pipe = FluxPipeline.from_pretrained(settings.work / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        captions("search", 2),
        height=64,
        width=64,
        num_inference_steps=2,
        max_sequence_length=pipe.tokenizer_2.model_max_length,
        output_type="np",
    ).images

    assert images.shape == (2, 64, 64, 3)
    assert np.isfinite(images).all()
    assert pipe.transformer.dtype == torch.float32
    lines = [json.loads(line) for line in (settings.work / "log.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} >= {"autoencoder", "latents"}


def test_an_interrupted_training_resumes_where_it_stopped(small: None, settings: Settings) -> None:
    trained_autoencoder(settings)
    first = torch.load(settings.work / "autoencoder.checkpoint.pt")
    train_autoencoder(Worker(replace(settings, steps=3), 0, "autoencoder"))
    second = torch.load(settings.work / "autoencoder.checkpoint.pt")

    assert (first["step"], second["step"]) == (2, 3)
    assert second["elapsed"] > first["elapsed"]
    changed = [not torch.equal(first["model"][key], second["model"][key]) for key in first["model"]]
    assert any(changed)


def test_a_finished_training_changes_nothing_when_run_again(small: None, settings: Settings) -> None:
    trained_autoencoder(settings)
    first = torch.load(settings.work / "autoencoder.checkpoint.pt")
    trained_autoencoder(settings)
    second = torch.load(settings.work / "autoencoder.checkpoint.pt")

    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])


def test_normalising_latents_keeps_reconstructions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_autoencoder().eval()
    images = rendered(tmp_path, "few", 20, SIZES, 0, 1)
    pixels = to_float(images[0][:4])
    with torch.no_grad():
        before = model(pixels).sample
        normalise(model, images)
        after = model(pixels).sample
        latent = model.encode(pixels).latent_dist.mode()

    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    scaled = (latent - model.config.shift_factor) * model.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=0.2)


def test_packing_is_the_pipelines() -> None:
    x = torch.randn(2, 8, 4, 6)

    torch.testing.assert_close(pack(x), FluxPipeline._pack_latents(x, 2, 8, 4, 6), rtol=0, atol=0)


def test_the_denoiser_learns_one_batch() -> None:
    torch.manual_seed(0)
    model = Denoiser()
    optimiser = Optimisers([model], 3e-3, 2e-3, outer=denoiser.OUTER)
    x, sigma, ids = torch.randn(4, 8, 8, 8), torch.rand(4), torch.randint(3, 20, (4, TEXT_TOKENS))
    target = torch.randn(4, 16, 32)
    losses = []
    for _ in range(30):
        loss = (model(x, sigma, ids) - target).square().mean()
        loss.backward()
        optimiser.step(1.0)
        losses.append(loss.item())

    assert losses[-1] < 0.7 * losses[0]


def test_the_distillation_target_is_the_guided_velocity() -> None:
    ids = torch.tensor([[7, 1, 0], [1, 0, 0]])
    x, sigma = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0.25, 0.75])

    def teacher(x: torch.Tensor, sigma: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return pack(x) * sigma[:, None, None] * ids[:, :1, None]

    target = guided_velocity(teacher, Batch(x, x, x, sigma, ids))

    empty = empty_prompts(ids)
    assert empty.tolist() == [[1, 0, 0], [1, 0, 0]]
    plain = 0.5 * sigma
    torch.testing.assert_close(target[:, 0, 0], torch.stack([plain[0] * (1 + GUIDANCE * 6), plain[1]]))


def test_orthogonal_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_muon_steps_have_the_size_of_the_learning_rate() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(32, 64))
    parameter.grad = torch.randn(32, 64)
    Muon([parameter], lr=0.1).step()

    assert parameter.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.2)  # 0.2 lr, as AdamW's


def test_the_tokenizer_knows_every_word_and_fits_every_caption() -> None:
    tokenizer = build_tokenizer()
    ids = token_ids(tokenizer, captions("held_out", 300))

    assert ids.shape == (300, TEXT_TOKENS)
    assert tokenizer.unk_token_id not in ids
    assert (ids == tokenizer.eos_token_id).any(axis=1).all()
    assert len(tokenizer) == len(VOCABULARY) + 3


def test_the_scheduler_shifts_by_two_at_half_and_three_at_full_size() -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = build_scheduler().config
    for side, shift in ((32, 2.0), (64, 3.0)):
        mu = calculate_shift(
            (side // 8) ** 2,
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        assert np.exp(mu) == pytest.approx(shift)


def test_images_survive_the_round_trip_to_tensors(tmp_path: Path) -> None:
    (images,) = rendered(tmp_path, "few", 5, (32,), 0, 1)

    np.testing.assert_array_equal(to_uint8(to_float(images)), images.transpose(0, 2, 3, 1))


def test_encoding_fills_every_row_of_every_size(small: None, settings: Settings) -> None:
    trained_autoencoder(settings)
    encode_scenes(Worker(settings, 0, "latents"), scenes=6)
    data = load_latents(settings.work)

    assert data.tokens.shape == (6, TEXT_TOKENS)
    assert {size: file.shape for size, file in data.latents.items()} == {
        size: (6, 8, size // 4, size // 4) for size in SIZES
    }
    assert (data.tokens > 0).any(axis=1).all()


def test_exporting_nothing_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--work", str(tmp_path), "--folder", str(tmp_path / "pipeline")]) == 2
    assert "No denoiser" in capsys.readouterr().err


def test_distilling_an_untrained_denoiser_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guidance", "--work", str(tmp_path), "--workers", "1"]) == 2
    assert "train the `denoiser` first" in capsys.readouterr().err
