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

# Stated peaks in TFLOP/s without sparsity, and the NVIDIA document that states each. Where a data sheet has sparse
# peaks alone, half of it. They were checked against quotations of these documents, and where the number of tensor
# cores and the boost clock are known, against their product (tests/test_devices.py).
_STATED = {
    "b200": (2250.0, "HGX B200 data sheet: 4.5 PFLOP/s per GPU with sparsity, halved"),
    "h200": (989.4, "H200 data sheet: 1979 with sparsity, halved"),
    "h100": (989.4, "H100 Tensor Core GPU architecture whitepaper: H100 SXM5, 989.4"),
    "h100-pcie": (756.5, "H100 data sheet: H100 PCIe, 1513 with sparsity, halved"),
    "a100": (312.0, "A100 data sheet: 312"),
    "l40s": (362.05, "L40S data sheet: 362.05"),
    "l4": (121.0, "L4 data sheet: 242 with sparsity, halved"),
    "a10": (125.0, "A10 data sheet: 125"),
    "rtx-4090": (165.2, "Ada GPU architecture whitepaper, RTX 4090 with FP32 accumulate: 165.2"),
    "rtx-3090": (71.0, "Ampere GA102 GPU architecture whitepaper, RTX 3090 with FP32 accumulate: 71"),
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
        else f"{rate:.0f} TFLOP/s, {100 * MEASURED_SHARE:.0f} % of the stated peak ({source})"
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
