"""Full-size networks with random weights, made on the device itself, and how their runs are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights

from benchmarks.stock import in_turn, stock_flux
from tuner.models import blueprint
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning, Size

SMALL: dict[str, dict[str, Any]] = {
    "flux": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 64},
    "wan2.1-1.3b": {"num_layers": 2, "num_attention_heads": 1, "ffn_dim": 64, "text_dim": 64},
}
VAE: dict[str, Any] = {  # vae/config.json of black-forest-labs/FLUX.1-dev
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
SMALL_VAE = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
WARM_UP_SECONDS = 1.0
_STD = 0.02


class Bench:
    """One model with random weights on a device.

    Text encoders are left out, so conditioning is random. FLUX has its autoencoder, Wan has none.

    Args:
        name: Short name of the model.
        device: Torch device.
        small: Whether the network has a few blocks and the output a few pixels.
    """

    def __init__(self, name: str, device: str, small: bool):
        self.known = known = known_model(name, small)
        self.device, self.small = device, small
        self.on_gpu = device.startswith("cuda")
        self._clock = time.perf_counter if self.on_gpu else time.process_time
        self.network = random_weights(known.transformer_class, known.transformer, device)
        self.pipe: Any = SimpleNamespace(transformer=self.network, _execution_device=torch.device(device))
        if name == "flux":
            vae = random_weights("AutoencoderKL", VAE | (SMALL_VAE if small else {}), device)
            self.pipe = stock_pipeline(known, self.network, vae)
        self.model: PipelineModel = known.model_class(self.pipe, known)
        with torch.device("meta"):
            shapes = known.meta_text(self.network.config)
        generator = torch.Generator(device).manual_seed(0)
        text = {
            key: torch.randn(rows.shape, generator=generator, device=device).to(self.network.dtype)
            for key, rows in shapes.items()
        }
        self._text = text if known.passes == 1 else text | {f"negative_{key}": rows for key, rows in text.items()}

    def text(self, batch: int = 1) -> Conditioning:
        """Returns conditioning of as many rows, all alike."""
        return {key: rows.expand(batch, *rows.shape[1:]).contiguous() for key, rows in self._text.items()}

    def step(self, size: Size, batch: int = 1) -> Callable[[], torch.Tensor]:
        """Returns what predicts one velocity at a stage size, from latents and conditioning that are there."""
        x, text = self.model.noise(size, range(batch)), self.text(batch)

        def run() -> torch.Tensor:
            with torch.inference_mode():
                return self.model.velocity(x, 0.5, text)

        return run

    def stock(self, steps: int) -> torch.Tensor:
        """Runs FLUX's stock pipeline from embeddings to latents."""
        return stock_flux(self.pipe, self.known, self.text(), steps, [0], self.known.size)

    def warm_up(self, run: Callable[[], object]) -> None:
        """Repeats a short call for a second, so that kernels are loaded and clocks are up; once if small."""
        start = time.perf_counter()
        while True:
            self.timed(run)
            if self.small or time.perf_counter() - start > WARM_UP_SECONDS:
                return

    def medians(self, ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
        """Returns the median seconds of ways of doing the same thing, timed in turn; nothing is warmed up."""
        times = in_turn(ways, self.timed, repeats, warmed_up=True)
        return {name: statistics.median(seconds) for name, seconds in times.items()}

    def timed(self, run: Callable[[], object]) -> float:
        """Returns the seconds of one call, with all that it has queued on the device."""
        self._wait()
        start = self._clock()
        run()
        self._wait()
        return self._clock() - start

    def forget_peak(self) -> None:
        """Starts to look for the peak of memory anew."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Returns the most memory that tensors took since ``forget_peak``, weights included; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def known_model(name: str, small: bool) -> PipelineBlueprint:
    """Returns what is known of a model; if small, of one with a few blocks that draws 64 x 64 pixels."""
    known = blueprint(name)
    assert isinstance(known, PipelineBlueprint)
    if not small:
        return known
    network = dict(known.transformer) | SMALL[name]
    known = replace(known, transformer=network, height=64, width=64, steps=8, text_tokens=16)
    return known if known.fps is None else known.with_frames(5)


def random_weights(class_name: str, config: Mapping[str, Any], device: str) -> Any:
    """Makes a network of diffusers as loading in bfloat16 does, with random weights that are drawn on the device.

    What the class keeps in float32 stays there. Buffers that no checkpoint holds have their computed values.

    Args:
        class_name: Name of the class in diffusers.
        config: Its configuration.
        device: Torch device.
    """
    with init_empty_weights(include_buffers=False):
        network = getattr(diffusers, class_name).from_config(dict(config))
    kept, generator = set(network._keep_in_fp32_modules or ()), torch.Generator(device).manual_seed(0)
    for name, module in network.named_modules():
        for key, empty in list(module.named_parameters(recurse=False)):
            path = f"{name}.{key}".split(".")
            dtype = torch.bfloat16 if kept.isdisjoint(path) else torch.float32
            values = torch.empty(empty.shape, device=device, dtype=dtype).normal_(std=_STD, generator=generator)
            setattr(module, key, torch.nn.Parameter(values, requires_grad=False))
    for module in network.modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.to(device))
    return network.eval()


def stock_pipeline(known: PipelineBlueprint, network: Any, vae: Any) -> Any:
    """Makes FLUX's stock pipeline of these parts, without text encoders."""
    missing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**known.scheduler)
    pipe = diffusers.FluxPipeline(scheduler=scheduler, transformer=network, vae=vae, **missing)
    pipe.set_progress_bar_config(disable=True)
    return pipe
