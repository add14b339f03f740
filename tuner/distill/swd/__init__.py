"""Scale-wise distillation (SwD, arXiv 2503.16397): a student that makes an image in few steps of growing size."""

from __future__ import annotations

from tuner.distill.swd.run import GENERATED, LORA, PRESET, Monitor, distill
from tuner.distill.swd.settings import KERNELS, LOSSES, SwdSettings

__all__ = ["GENERATED", "KERNELS", "LORA", "LOSSES", "PRESET", "Monitor", "SwdSettings", "distill"]
