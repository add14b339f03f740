"""Solvers as parameters of a trial. Each makes one network call per step, so none changes the price."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SOLVERS = ("euler", "dpmpp-2m", "ab2", "unipc", "res-2m")


def suggest_solver(trial: BaseTrial, prefix: str, solvers: Sequence[str]) -> str:
    """Asks for the solver of a stage, one of these."""
    solver: str = trial.suggest_categorical(f"{prefix}solver", solvers)
    return solver


def params_of_solver(solver: str, prefix: str, solvers: Sequence[str]) -> dict[str, Any]:
    """Inverts ``suggest_solver``.

    Raises:
        ValueError: If it is none of these solvers.
    """
    if solver not in solvers:
        raise ValueError(f"its solver must be one of {', '.join(solvers)}, but it is {solver}.")
    return {f"{prefix}solver": solver}


def called(sigmas: Sequence[float], reuse: Collection[int]) -> list[float]:
    """Returns the noise levels of the network calls that any of these solvers makes."""
    return [sigma for step, sigma in enumerate(sigmas[:-1]) if step not in reuse]
