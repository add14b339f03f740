"""Solvers as parameters of a trial. Each makes one network call per step, so none changes the price."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SOLVERS = ("euler", "dpmpp-2m", "ab2", "unipc", "res-2m")
BY_STAGE = "by-stage"
"""The value of ``solver`` with which every stage has a parameter of its own."""


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


def suggest_solvers(trial: BaseTrial, stages: int, solvers: Sequence[str]) -> list[str]:
    """Asks for one solver of all stages, or else for the solver of each.

    One parameter for all keeps most proposals near what is known to work: with a parameter per stage, few draws
    would have the same rule throughout.
    """
    choices = (*solvers, BY_STAGE) if len(solvers) > 1 else solvers
    chosen: str = trial.suggest_categorical("solver", choices)
    if chosen != BY_STAGE:
        return [chosen] * stages
    return [suggest_solver(trial, f"stage{k}.", solvers) for k in range(1, stages + 1)]


def params_of_solvers(chosen: Sequence[str], solvers: Sequence[str]) -> dict[str, Any]:
    """Inverts ``suggest_solvers``.

    Raises:
        ValueError: If one is none of these solvers.
    """
    if len(set(chosen)) == 1:
        return params_of_solver(chosen[0], "", solvers)
    params: dict[str, Any] = {"solver": BY_STAGE}
    for k, solver in enumerate(chosen, start=1):
        params |= params_of_solver(solver, f"stage{k}.", solvers)
    return params


def called(sigmas: Sequence[float], reuse: Collection[int]) -> list[float]:
    """Returns the noise levels of the network calls that any of these solvers makes."""
    return [sigma for step, sigma in enumerate(sigmas[:-1]) if step not in reuse]
