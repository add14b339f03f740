"""The resample modes that do more than resize a latent: by its spectrum, and by way of its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from tuner.errors import UserError
from tuner.models import FlowModel, wrap
from tuner.pixels import resize_pixels
from tuner.resample import expand_spectrum
from tuner.sampling import sample, stage_seeds
from tuner.schedule import RESAMPLE_MODES, Schedule, Stage
from tuner.sigmas import aligned_sigma, edm_sigmas


@pytest.fixture(scope="module")
def model(flux_pipe: Any) -> FlowModel:
    return wrap(flux_pipe)


def test_the_spectrum_keeps_what_it_has_and_gets_noise_for_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(1, 1, 6, 8, generator=generator), torch.randn(1, 1, 9, 12, generator=generator)
    expanded = expand_spectrum(x, noise, level=0.4, ratio=1.5)
    gain = aligned_sigma(0.4, 1.5) / 0.4
    spectrum = dctn(expanded[0, 0].numpy(), norm="ortho") / gain
    np.testing.assert_allclose(spectrum[:6, :8], dctn(x[0, 0].numpy(), norm="ortho"), atol=1e-5)
    rest = 0.4 * dctn(noise[0, 0].numpy(), norm="ortho")
    np.testing.assert_allclose(spectrum[6:], rest[6:], atol=1e-5)
    np.testing.assert_allclose(spectrum[:6, 8:], rest[:6, 8:], atol=1e-5)


@pytest.mark.parametrize("level", [0.2, 0.7, 1.0])
def test_an_enlarged_latent_has_the_aligned_level(level: float) -> None:
    generator = torch.Generator().manual_seed(1)
    small, noise = torch.randn(2, 1, 1, 64, 64, generator=generator)
    fresh = torch.randn(1, 1, 128, 128, generator=generator)
    flat = 3.0  # a constant image: enlarging it changes nothing
    enlarged = expand_spectrum((1 - level) * flat + level * small.reshape(1, 1, 64, 64), fresh, level, ratio=2)
    aligned = aligned_sigma(level, 2)
    assert enlarged.mean().item() == pytest.approx((1 - aligned) * flat, abs=0.05)
    assert enlarged.std().item() == pytest.approx(aligned, rel=0.02)
    assert noise.shape == small.shape


def test_a_noisy_stage_may_go_on_from_an_enlarged_spectrum(model: FlowModel) -> None:
    level = aligned_sigma(0.6, 2)
    schedule = Schedule(
        stages=(
            Stage(scale=0.5, sigmas=(1, 0.6)),
            Stage(sigmas=(level, 0.4, 0), resample="dct"),
        )
    )
    encoded = model.encode(["a red fox"])
    latents = sample(model, schedule, encoded, [3], (32, 32))
    low = model.noise((16, 16), [3])
    low = low - 0.4 * model.velocity(low, 1.0, encoded)
    x = expand_spectrum(low, model.noise((32, 32), stage_seeds([3], 1)), 0.6, 2)
    x = x + (0.4 - level) * model.velocity(x, level, encoded)
    torch.testing.assert_close(latents, x - 0.4 * model.velocity(x, 0.4, encoded), rtol=0, atol=1e-5)


def test_pixels_are_decoded_resized_and_encoded(model: FlowModel) -> None:
    x = model.noise((16, 16), [1, 2])
    resized = resize_pixels(model, x, (32, 48))
    images = [image.resize((48, 32), 1) for image in model.decode(x)]
    torch.testing.assert_close(resized, model.encode_images(images))
    assert resized.shape[-2:] == (16, 24)
    schedule = Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0)), Stage(sigmas=(0.12, 0), resample="pixel")))
    assert sample(model, schedule, model.encode(["a red fox"]), [3], (32, 32)).isfinite().all()


def test_encoding_undoes_decoding_on_the_embedded_model() -> None:
    from tuner.models import blueprint

    tiny = blueprint("tiny").load("cpu")
    x = sample(tiny, tiny.blueprint.plain(4), tiny.encode(["red circle on plain gray"]), [0])
    again = tiny.encode_images(tiny.decode(x))
    assert float((again - x).square().mean()) < 0.1 * float(x.square().mean())


def test_an_upscaler_is_read_by_spandrel(model: FlowModel, tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel")
    from spandrel.architectures.SPAN import SPAN

    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)
    file = tmp_path / "span.pth"
    torch.save({"params": network.state_dict()}, file)
    assert isinstance(spandrel.ModelLoader().load_from_file(file), spandrel.ImageModelDescriptor)
    x = model.noise((16, 16), [1])
    with_network = resize_pixels(model, x, (32, 32), str(file))
    assert with_network.shape == resize_pixels(model, x, (32, 32)).shape
    assert not torch.allclose(with_network, resize_pixels(model, x, (32, 32)))
    with pytest.raises(UserError, match="cannot be read by spandrel"):
        resize_pixels(model, x, (32, 32), str(tmp_path / "none.pth"))


def test_a_family_that_cannot_encode_says_so(model: FlowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(model), "encode_images")
    with pytest.raises(UserError, match="cannot encode images"):
        resize_pixels(model, model.noise((16, 16), [1]), (32, 32))


def test_searches_choose_among_kernels_only() -> None:
    assert RESAMPLE_MODES == ("nearest", "bilinear", "bicubic", "lanczos", "area")


@pytest.mark.parametrize(
    ("stages", "rule"),
    [
        ([Stage(scale=0.5, sigmas=(1, 0.5)), Stage(sigmas=(0.6, 0), resample="pixel")], "ends at sigma 0.5"),
        ([Stage(scale=0.5, sigmas=(1, 0)), Stage(sigmas=(0.6, 0), resample="dct")], "still noisy"),
        ([Stage(scale=1, sigmas=(1, 0.5)), Stage(scale=0.5, sigmas=(0.6, 0), resample="dct")], "still noisy"),
        ([Stage(scale=0.5, sigmas=(1, 0.5)), Stage(sigmas=(0.6, 0), resample="dct")], "starts at 0.666666667"),
    ],
)
def test_modes_that_do_not_fit_the_levels_are_refused(stages: list[Stage], rule: str) -> None:
    if stages[-1].scale != 1:
        stages = [*stages, Stage(sigmas=(0.5, 0))]
    with pytest.raises(ValueError, match=rule):
        Schedule(stages=tuple(stages))


def test_an_upscaler_needs_pixels() -> None:
    with pytest.raises(ValueError, match="needs `resample: pixel`"):
        Stage(sigmas=(1, 0), upscaler="x.pth")


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_edm_grid_falls_from_1_to_0(steps: int) -> None:
    assert Stage(sigmas=edm_sigmas(steps)).steps == steps
    assert (edm_sigmas(steps)[0], edm_sigmas(steps)[-1]) == (1.0, 0.0)


def test_the_edm_grid_has_the_ratios_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    ratios = FlowMatchEulerDiscreteScheduler()._convert_to_karras(torch.tensor([80.0, 0.002]), 7)
    ours = np.array(edm_sigmas(7)[1:-1])
    np.testing.assert_allclose(ours / (1 - ours), np.asarray(ratios, dtype=float)[1:], rtol=1e-5)
