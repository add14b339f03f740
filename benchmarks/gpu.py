"""What schedules save on real hardware: ``python -m benchmarks.gpu -o gpu.json`` on a machine with a GPU.

Full-size networks are built on the device with random bfloat16 weights: latency does not depend on the values. The
text encoders and the VAE are left out; conditioning is random, too. For each model, FLUX.1-dev and Wan 2.1 1.3B,
the script measures the baseline, step reduction and every shipped preset, each beside its price; single steps at
every stage size, plain and compiled; and FLUX's stock pipeline on the same schedule. Progress goes to stderr, JSON
to the output. ``--small`` runs the same code with networks of a few blocks, in seconds on a CPU. What a table sets
beside each other, plain and compiled steps, our loop and the stock pipeline, is timed in turn. On a CPU, seconds
are those of the process in one thread, so that other work on the machine does not decide.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from benchmarks.stock import in_turn, stock_flux
from tuner import presets
from tuner.flops import price
from tuner.invariance import one_thread
from tuner.models import blueprint
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._loading import compile_network
from tuner.models._pipeline_model import PipelineModel
from tuner.sampling import sample
from tuner.schedule import Schedule

MODELS = ("flux", "wan2.1-1.3b")
SMALL: dict[str, dict[str, Any]] = {
    "flux": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2},
    "wan2.1-1.3b": {"num_layers": 2, "num_attention_heads": 2, "ffn_dim": 64},
}
STEPS_KEPT = (2, 3, 4)


def log(text: str) -> None:
    """Says on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One model with random weights on a device.

    Args:
        name: Short name of the model.
        device: Torch device.
        small: Whether the network has a few blocks and the output a few pixels.
        repeats: Runs of which the median is taken.
    """

    def __init__(self, name: str, device: str, small: bool, repeats: int):
        known = blueprint(name)
        assert isinstance(known, PipelineBlueprint)
        if small:
            network = dict(known.transformer) | SMALL[name]
            known = replace(known, transformer=network, height=128, width=128, steps=6, text_tokens=16)
            known = known if known.fps is None else known.with_frames(5)
        self.known: PipelineBlueprint = known
        self.device, self.repeats = device, repeats
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self.network = random_network(known, device)
        pipe = SimpleNamespace(transformer=self.network, _execution_device=torch.device(device))
        self.model: PipelineModel = known.model_class(pipe, known)
        with torch.device("meta"):
            shapes = known.meta_text(self.network.config)
        text = {key: torch.randn(rows.shape, device=device).to(self.network.dtype) for key, rows in shapes.items()}
        self.text = text if known.passes == 1 else text | {f"negative_{key}": rows for key, rows in text.items()}

    def seconds(self, run: Callable[[], object]) -> float:
        """Returns the median time of a call after one that warms up."""
        return self.medians({"it": run})["it"]

    def medians(self, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Returns the median times of ways of doing the same thing, timed in turn."""
        return {name: statistics.median(times) for name, times in in_turn(ways, self._timed, self.repeats).items()}

    def _timed(self, run: Callable[[], object]) -> float:
        self._wait()
        start = self._clock()
        run()
        self._wait()
        return self._clock() - start

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def run(self, schedule: Schedule) -> dict[str, Any]:
        """Times a whole schedule and puts its price and its peak memory beside."""
        on_gpu = self.device.startswith("cuda")
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = self.seconds(lambda: sample(self.model, schedule, self.text, [0]))
        peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
        return {"seconds": seconds, "tflops": price(schedule, self.known).tflops, "peak_gib": peak}

    def schedules(self) -> dict[str, Schedule]:
        """Lists the baseline, step reduction and the presets made for the model that need no autoencoder.

        A LoRA that a preset brings is left out: fused into the weights it costs nothing.
        """
        known = self.known
        found = {f"baseline, {known.steps} steps": known.baseline()}
        found |= {f"{known.steps // kept} steps": known.plain(known.steps // kept) for kept in STEPS_KEPT}
        shipped = (presets.load(name) for name in presets.available())
        return found | {
            preset.name: preset.schedule
            for preset in shipped
            if preset.model == known.name and all(stage.resample != "pixel" for stage in preset.schedule.stages)
        }

    def steps(self, schedules: dict[str, Schedule]) -> list[dict[str, Any]]:
        """Times one velocity at every stage size of some schedules, plain and compiled, and compiling for it."""
        scales = sorted({stage.scale for schedule in schedules.values() for stage in schedule.stages})
        sizes = [self.known.stage_size(self.known.size, scale) for scale in scales]
        compile_network(self.network)
        rows = []
        for size in sizes:
            log(f"{self.known.name}: one step at {size[0]}x{size[1]}, plain and compiled")
            x = self.model.noise(size, [0])

            def compiled(x: torch.Tensor = x) -> object:
                return self.model.velocity(x, 0.5, self.text)

            def plain(step: Callable[[], object] = compiled) -> object:
                with torch.compiler.set_stance("force_eager"):
                    return step()

            with torch.inference_mode():
                start = time.perf_counter()
                compiled()
                first = time.perf_counter() - start
                medians = self.medians({"plain_seconds": plain, "compiled_seconds": compiled})
            rows.append({"height": size[0], "width": size[1], "compiling_seconds": first} | medians)
        return rows

    def loops(self) -> dict[str, Callable[[], torch.Tensor]]:
        """Returns FLUX's baseline from embeddings to latents, with our loop and with the stock pipeline."""
        known = self.known
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**known.scheduler)
        missing = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        pipe = diffusers.FluxPipeline(scheduler=scheduler, transformer=self.network, **missing)
        pipe.set_progress_bar_config(disable=True)
        return {
            "ours": lambda: sample(self.model, known.baseline(), self.text, [0]),
            "stock": lambda: stock_flux(pipe, known, self.text, known.steps, [0], known.size),
        }

    def measure(self) -> dict[str, Any]:
        """Measures everything of this model; returns plain JSON types."""
        schedules, runs = self.schedules(), []
        for name, schedule in schedules.items():
            log(f"{self.known.name}: {name}")
            runs.append({"schedule": name} | self.run(schedule))
        baseline = runs[0]
        for row in runs:
            row["speedup"] = baseline["seconds"] / row["seconds"]
            row["tflops_ratio"] = baseline["tflops"] / row["tflops"]
        result = {"model": self.known.name, "height": self.known.height, "width": self.known.width, "runs": runs}
        if self.known.name == "flux":
            log("flux: the stock pipeline")
            medians = self.medians(self.loops())
            result |= {"stock_seconds": medians["stock"], "ours_over_stock": medians["ours"] / medians["stock"]}
        return result | {"frames": self.known.frames, "steps": self.steps(schedules)}


def random_network(known: PipelineBlueprint, device: str) -> Any:
    """Builds the transformer in bfloat16 on the device itself, with the random weights of its construction."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            network = getattr(diffusers, known.transformer_class).from_config(dict(known.transformer))
    finally:
        torch.set_default_dtype(before)
    return network.to(torch.bfloat16).eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the models and writes one JSON file, whole after every model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, help="runs of which the median is taken: 3, or 20 if small")
    parser.add_argument("--small", action="store_true", help="networks of a few blocks, to prove the script")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.small:
        parser.error("full-size networks need a GPU; run with --small to prove the script on a CPU.")
    on_gpu, repeats = options.device.startswith("cuda"), options.repeats or (20 if options.small else 3)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(options.device) if on_gpu else "cpu",
        "small": options.small,
        "versions": {module.__name__: module.__version__ for module in (torch, diffusers)},
        "models": [],
    }
    for name in options.models:
        log(f"{name}: building the network")
        with contextlib.nullcontext() if on_gpu else one_thread():
            result["models"].append(Bench(name, options.device, options.small, repeats).measure())
        options.output.write_text(json.dumps(result, indent=2))
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
