"""Theory: the stated peak of a GPU is what its tensor cores do in a clock, times the boost clock."""

from __future__ import annotations

import pytest

from tuner.devices import MEASURED_SHARE, speed_of

# Streaming multiprocessors, boost clock in GHz, and dense bfloat16 operations per multiprocessor and clock that
# accumulate in float32 (Ampere 8.0: 2048, Hopper: 4096, data-centre 8.6 and 8.9: 1024, GeForce: half of that).
CORES = {
    "h200": (132, 1.83, 4096),
    "h100": (132, 1.83, 4096),
    "h100-pcie": (114, 1.62, 4096),
    "a100": (108, 1.41, 2048),
    "l40s": (142, 2.49, 1024),
    "l4": (58, 2.04, 1024),
    "a10": (72, 1.695, 1024),
    "rtx-4090": (128, 2.52, 512),
    "rtx-3090": (82, 1.695, 512),
}


@pytest.mark.parametrize("name", CORES)
def test_a_stated_peak_follows_from_cores_and_clock(name: str) -> None:
    multiprocessors, gigahertz, operations = CORES[name]
    peak = 1 / speed_of(name).seconds_per_tflop / MEASURED_SHARE
    assert peak == pytest.approx(multiprocessors * gigahertz * operations / 1000, rel=5e-3)
