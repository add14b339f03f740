"""Theory: analytic videos, against the product's own Gaussian data, sampled processes and the order of solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.gaussian_video import Contents, GaussianVideo, ar1_spectrum
from studies.propose import gaussian_data
from tuner.schedule import Schedule
from tuner.solvers import available

CONTENTS = Contents.drawn(3)

SCHEDULES: dict[str, Any] = {
    "plain": [{"steps": 4, "shift": 3}],
    "renoised": [{"scale": 0.5, "sigmas": [1, 0.8, 0.5]}, {"sigmas": [0.7, 0.3, 0]}],
    "reused": [{"steps": 6, "reuse": [2, 3]}],
    "enlarged": [{"scale": 0.5, "sigmas": [1, 0.9, 0.8]}, {"resample": "dct", "sigmas": [8 / 9, 0.5, 0]}],
}


@pytest.mark.parametrize("solver", available())
@pytest.mark.parametrize("name", SCHEDULES)
def test_modes_are_those_of_the_gaussian_data_that_sampling_was_held_against(name: str, solver: str) -> None:
    schedule = Schedule.model_validate({"stages": SCHEDULES[name], "solver": solver})
    video = GaussianVideo(CONTENTS, frames=1)
    variances, frequencies = np.array(gaussian_data.BANDS).T
    video.variances, video._frequencies = variances[None, :, None], frequencies[:, None]
    assert video.distances(schedule)[0] == pytest.approx(gaussian_data.distances(schedule), rel=1e-9)


@pytest.mark.parametrize(("frames", "size"), [(1, 1.0), (5, 1.0), (21, 0.5)])
def test_the_distance_falls_with_the_square_of_the_steps(frames: int, size: float) -> None:
    video = GaussianVideo(CONTENTS, frames, size)
    few, many = (
        video.distances(Schedule.model_validate({"stages": [{"steps": steps}], "solver": "euler"})).mean()
        for steps in (400, 800)
    )
    assert few / many == pytest.approx(4, rel=0.1)


def test_the_spectrum_is_that_of_the_process() -> None:
    rng, correlation, frames = np.random.default_rng(0), 0.8, 5
    drawn = [rng.normal(size=20000)]
    for _ in range(frames - 1):
        drawn.append(correlation * drawn[-1] + np.sqrt(1 - correlation**2) * rng.normal(size=20000))
    sampled = np.linalg.eigvalsh(np.cov(drawn))
    assert ar1_spectrum(np.array(correlation), frames) == pytest.approx(sampled, rel=0.05)


def test_a_frame_is_the_same_at_any_number_of_frames_and_half_the_size_has_a_quarter_of_the_power() -> None:
    per_frame = [GaussianVideo(CONTENTS, frames).variances.mean(axis=2) for frames in (1, 5, 21)]
    assert per_frame[1] == pytest.approx(per_frame[0])
    assert per_frame[2] == pytest.approx(per_frame[0])
    half = GaussianVideo(CONTENTS, 1, 0.5).variances
    assert half == pytest.approx(GaussianVideo(CONTENTS, 1).variances[:, : half.shape[1]] / 4)
    assert 0 < half.shape[1] < per_frame[0].shape[1]
