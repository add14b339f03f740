"""Steps of diffusers' schedulers on levels that are given, where a solver of ours makes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmpp-2m": ("DPMSolverMultistepScheduler", FLOW),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {**FLOW, "solver_order": 3}),
    "res-2m": ("DPMSolverMultistepScheduler", {**FLOW, "solver_type": "heun"}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {**FLOW, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", FLOW),
    "unipc-3": ("UniPCMultistepScheduler", {**FLOW, "solver_order": 3}),
    "deis-2": ("DEISMultistepScheduler", FLOW),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
}


def walked_by_diffusers(
    name: str,
    velocity: Callable[[Any, float], Any],
    x: Any,
    sigmas: list[float],
    noise: Callable[[int], Any],
) -> Any:
    """Steps with the scheduler itself, whose levels are replaced after it has made its own."""
    import diffusers
    import torch

    kind, config = STOCK[name]
    if kind.startswith(("DPM", "UniPC")) and sigmas[-1] > 0:
        config = {**config, "final_sigmas_type": "sigma_min"}
    scheduler = getattr(diffusers, kind)(**config)
    scheduler.set_timesteps(len(sigmas) - 1)
    levels = torch.tensor(sigmas, dtype=torch.float64)
    if name.startswith("unipc"):
        levels[0] = min(levels[0], 1 - 1e-6)  # as it does with its own
    calls = sigmas[:-1]
    if name == "heun":
        inner = levels[1:-1].repeat_interleave(2)
        levels = torch.cat([levels[:1], inner, levels[-1:]])
        calls = levels[:-1].tolist()
    scheduler.sigmas = levels
    scheduler.timesteps = torch.arange(len(calls), 0, -1)
    scheduler.set_begin_index(0)
    for k, sigma in enumerate(calls):
        more = {"variance_noise": noise(k)} if "sde" in name else {}
        timestep = scheduler.timesteps[k].float()
        x = scheduler.step(velocity(x, sigma), timestep, x, return_dict=False, **more)[0]
    return x
