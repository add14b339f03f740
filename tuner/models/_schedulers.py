"""Which step rule a pipeline's own scheduler runs, read from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.errors import UserError

FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
EULER = "EulerDiscreteScheduler"
MULTISTEP = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")

_MULTISTEP_OPTIONS = {
    "num_train_timesteps": 1000,
    "final_sigmas_type": "zero",
    "lower_order_final": True,
    "thresholding": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    FLOW_EULER: {"num_train_timesteps": 1000, "stochastic_sampling": False},
    EULER: {"final_sigmas_type": "zero", "interpolation_type": "linear", "timestep_type": "discrete"},
    MULTISTEP[0]: _MULTISTEP_OPTIONS
    | {"algorithm_type": "dpmsolver++", "use_lu_lambdas": False, "lambda_min_clipped": -math.inf},
    MULTISTEP[1]: _MULTISTEP_OPTIONS
    | {"solver_type": "bh2", "predict_x0": True, "disable_corrector": [], "solver_p": None},
}
"""Options that decide the rule, and the value that is known here; a scheduler that does not say has it."""

_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_UNIPC = {2: "unipc", 3: "unipc-3"}
_DPM = {1: "euler", 2: "dpmpp-2m", 3: "dpmpp-3m"}


def stock_solver(config: Mapping[str, Any], supported: Sequence[str], flow: bool = True) -> str:
    """Names the solver that makes the steps of a scheduler of diffusers.

    Args:
        config: ``scheduler_config.json``; without a ``_class_name``, of the first class that is supported.
        supported: Classes whose levels the model's family knows.
        flow: Whether the model predicts a flow.

    Raises:
        UserError: If the scheduler is of another class, or has an option that is unknown here.
    """
    kind = config.get("_class_name", supported[0])
    if kind not in supported:
        raise UserError(f"Scheduler {kind!r} is not supported with this model; use {' or '.join(supported)}.")
    expected = dict(_OPTIONS.get(kind, {}))
    if kind in MULTISTEP and flow:
        expected |= _FLOW
    elif kind in MULTISTEP:
        expected |= {"use_flow_sigmas": False}
    for option, value in expected.items():
        if config.get(option, value) != value:
            raise UserError(
                f"Scheduler option {option}={config[option]!r} is not supported; set it to {value!r} in the "
                "configuration."
            )
    if kind not in MULTISTEP:
        return "euler"
    order = config.get("solver_order", 2)
    known = _UNIPC if kind == MULTISTEP[1] else _DPM
    if order not in known:
        raise UserError(
            f"Scheduler option solver_order={order!r} is not supported; set it to one of "
            f"{', '.join(map(str, known))} in the configuration."
        )
    return "res-2m" if order == 2 and config.get("solver_type") == "heun" else known[order]
