"""What is read of a pipeline's own scheduler: its levels, start and steps, or that it is not known."""

from __future__ import annotations

import logging
from typing import Any

import diffusers
import pytest
import torch

from tests.small_pipelines import parts, shortened, small_pipeline
from tests.stock_steps import STOCK, walked_by_diffusers
from tuner.errors import UserError
from tuner.models import FlowModel, blueprint, wrap
from tuner.sampling import sample, stage_start, step_seeds
from tuner.schedule import Schedule, Stage

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.5}
SIZE = (32, 32)
PROMPT = ["a red fox"]


def other(family: str, kind: str, **changes: Any) -> Any:
    """Makes a small pipeline with another scheduler, which is configured as its own but for some options."""
    pipe = small_pipeline(family).build()
    logging.disable(logging.WARNING)  # of options that the other class does not have
    try:
        return parts.with_scheduler(pipe, getattr(diffusers, kind).from_config(pipe.scheduler.config, **changes))
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("steps", [2, 3, 16])
@pytest.mark.parametrize(
    ("family", "kind", "changes", "solver"),
    [
        ("WanPipeline", "FlowMatchEulerDiscreteScheduler", {"shift": 2.5}, "euler"),
        ("WanPipeline", "DPMSolverMultistepScheduler", FLOW, "dpmpp-2m"),
        ("WanPipeline", "UniPCMultistepScheduler", FLOW | {"solver_order": 3}, "unipc-3"),
        ("SanaPipeline", "FlowMatchEulerDiscreteScheduler", {"shift": 2.5}, "euler"),
        ("SanaPipeline", "UniPCMultistepScheduler", FLOW, "unipc"),
        ("SanaPipeline", "DPMSolverMultistepScheduler", FLOW | {"solver_order": 3}, "dpmpp-3m"),
        ("SanaPipeline", "DPMSolverMultistepScheduler", FLOW | {"solver_type": "heun"}, "res-2m"),
        ("PixArtSigmaPipeline", "EulerDiscreteScheduler", {}, "euler"),
        ("PixArtSigmaPipeline", "UniPCMultistepScheduler", {}, "unipc"),
        ("PixArtSigmaPipeline", "DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}, "dpmpp-2m"),
        ("StableDiffusionXLPipeline", "DPMSolverMultistepScheduler", {}, "dpmpp-2m"),
        ("StableDiffusionXLPipeline", "UniPCMultistepScheduler", {"timestep_spacing": "linspace"}, "unipc"),
    ],
)
def test_plain_sampling_is_what_the_pipeline_runs(
    family: str, kind: str, changes: dict[str, Any], solver: str, steps: int
) -> None:
    small, pipe = small_pipeline(family), other(family, kind, **changes)
    model = shortened(wrap(pipe).blueprint, small).wrap(pipe)
    schedule = model.blueprint.plain(steps, SIZE)
    assert schedule.solver == solver
    ours = sample(model, schedule, model.encode(PROMPT), [3], SIZE)
    theirs = small.stock_latents(pipe, model.blueprint, PROMPT, [3], steps, SIZE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("family", "kind", "changes", "rule"),
    [
        ("StableDiffusionXLPipeline", "LCMScheduler", {}, "use EulerDiscreteScheduler or DPMSolver"),
        ("StableDiffusionXLPipeline", "EulerAncestralDiscreteScheduler", {}, "use EulerDiscreteScheduler or"),
        ("StableDiffusionXLPipeline", "DDIMScheduler", {}, "'DDIMScheduler' is not supported"),
        ("StableDiffusionXLPipeline", "EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, "'zero'"),
        ("FluxPipeline", "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 500}, "set it to 1000"),
        ("FluxPipeline", "UniPCMultistepScheduler", FLOW, "use FlowMatchEulerDiscreteScheduler"),
        ("SanaPipeline", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "'dpmsolver"),
        ("SanaPipeline", "DPMSolverMultistepScheduler", {"lower_order_final": False}, "set it to True"),
        ("SanaPipeline", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas"),
        ("SanaPipeline", "UniPCMultistepScheduler", {"solver_order": 1}, "set it to one of 2, 3"),
        ("WanPipeline", "UniPCMultistepScheduler", {"use_flow_sigmas": False}, "set it to True"),
    ],
)
def test_what_would_step_otherwise_is_refused(family: str, kind: str, changes: dict[str, Any], rule: str) -> None:
    pipe = other(family, kind, **changes)
    with pytest.raises(UserError, match=rule) as found:
        wrap(pipe).blueprint.plain(4, SIZE)
    assert "\n" not in str(found.value)


def small_flux() -> FlowModel:
    pipe = small_pipeline("FluxPipeline").build()
    return shortened(wrap(pipe).blueprint, small_pipeline("FluxPipeline")).wrap(pipe)


@pytest.mark.parametrize("name", sorted(set(STOCK) - {"deis-2"}))
def test_a_solver_steps_a_network_as_its_scheduler_does(name: str) -> None:
    model, schedule = small_flux(), Schedule(stages=(Stage(steps=5, shift=3),), solver=name)
    conditioning, sigmas = model.encode(PROMPT), list(schedule.stages[0].sigmas)
    drawn: dict[int, torch.Tensor] = {}

    def noise(step: int) -> torch.Tensor:
        return drawn.setdefault(step, model.noise(SIZE, step_seeds([3], 0, step)))

    ours = sample(model, schedule, conditioning, [3], SIZE)
    with torch.inference_mode():
        start = stage_start(model, schedule, 0, None, [3], SIZE)
        theirs = walked_by_diffusers(
            name, lambda x, sigma: model.velocity(x, sigma, conditioning), start, sigmas, noise
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_sana_starts_from_noise_alone_where_its_scheduler_does() -> None:
    sana = blueprint("sana")
    first = sana.baseline().stages[0].sigmas[0]
    assert 0.999 < first < 1
    assert sana.start(first) == sana.start(1.0) == 1
    with pytest.raises(UserError, match=r"must be 1 or its scheduler's 0\.9996"):
        sana.start(0.9)
