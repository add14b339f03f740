"""How fast common GPUs run a denoiser, for prices of a search before it starts.

One speed was measured (`docs/benchmarks.md`): an H100 SXM samples FLUX.1-dev in bfloat16, not compiled, at 402
TFLOP/s, 41 % of the 989 that its maker states. The other GPUs are assumed to reach the same share of their stated
peak: dense bfloat16 tensor operations that accumulate in float32. Small networks and small images reach less.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.errors import UserError, unknown_name

MEASURED_SHARE = 402 / 989.4
"""The share of its stated peak that an H100 reached."""

# Stated peaks in TFLOP/s, without sparsity, from NVIDIA's data sheets and architecture whitepapers.
_STATED = {
    "b200": (2250.0, "HGX B200 data sheet, half of the sparse peak"),
    "h200": (989.4, "H200 data sheet, half of the sparse peak"),
    "h100": (989.4, "H100 SXM data sheet, half of the sparse peak"),
    "h100-pcie": (756.0, "H100 PCIe data sheet, half of the sparse peak"),
    "a100": (312.0, "A100 data sheet"),
    "l40s": (362.0, "L40S data sheet"),
    "l4": (121.0, "L4 data sheet, half of the sparse peak"),
    "a10": (125.0, "A10 data sheet"),
    "rtx-4090": (165.2, "Ada GPU architecture whitepaper, appendix A"),
    "rtx-3090": (71.0, "GA102 GPU architecture whitepaper, table 3"),
}
_MEASURED = "h100"


@dataclass(frozen=True)
class Speed:
    """How fast a device works.

    Attributes:
        device: Name of the device.
        seconds_per_tflop: Seconds per TFLOP of the denoiser.
        seconds_per_image: Seconds to decode and score an image; None if it is not known.
        basis: Where the numbers come from.
    """

    device: str
    seconds_per_tflop: float
    seconds_per_image: float | None
    basis: str


def known_devices() -> list[str]:
    """Lists the names that `speed_of` accepts."""
    return sorted(_STATED)


def speed_of(name: str) -> Speed:
    """Returns the speed of a GPU.

    Raises:
        UserError: If the name is not known.
    """
    if name not in _STATED:
        raise unknown_name("device", name, known_devices())
    peak, source = _STATED[name]
    rate = MEASURED_SHARE * peak
    basis = (
        f"{rate:.0f} TFLOP/s, measured with FLUX.1-dev"
        if name == _MEASURED
        else f"{rate:.0f} TFLOP/s, {100 * MEASURED_SHARE:.0f} % of the stated {peak:g} ({source})"
    )
    return Speed(name, 1 / rate, None, basis)


def speed_at(tflops: float) -> Speed:
    """Returns the speed of a device of which a user says how many TFLOP/s it makes.

    Raises:
        UserError: If the number is not positive and finite.
    """
    if not 0 < tflops < float("inf"):
        raise UserError(f"Device speed {tflops:g} must be positive and finite; give TFLOP/s, such as 400.")
    return Speed(f"{tflops:g} TFLOP/s", 1 / tflops, None, "as given")
