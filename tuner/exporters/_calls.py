"""A stage as its network calls: Euler's step after each, and what other rules add to it.

All rules of ``tuner.solvers`` that draw no noise are linear in what the network predicts. A call at a latent
predicts a clean latent and the noise in it, and Euler's step mixes these two at the next level. Any other rule
adds multiples of how earlier predictions differ from the last one. A target that can add latents thus runs them
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.exporters.base import RefusedError
from tuner.schedule import Schedule
from tuner.solvers import call_sigmas, draws_noise, reusing, solve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = NDArray[np.float64]
    """Weights of the first latent and of every call's clean latent."""

_SAME = 1e-10


@dataclass(frozen=True)
class Correction:
    """What a rule adds to Euler's step for an earlier call.

    Attributes:
        back: How many calls ago that was.
        clean: Multiple of its clean latent less the last call's.
        noise: Multiple of its noise less the last call's.
    """

    back: int
    clean: float
    noise: float


@dataclass(frozen=True)
class Call:
    """A network call and the step after it.

    Attributes:
        level: Noise level of the call.
        following: Noise level that the step leads to.
        corrections: What is added to Euler's step.
    """

    level: float
    following: float
    corrections: tuple[Correction, ...]


def calls_of(target: str, schedule: Schedule, index: int) -> tuple[Call, ...]:
    """Lists the network calls of a stage; steps that reuse a velocity have none and become part of others.

    Args:
        target: The target's name, as users know it.
        schedule: What is exported.
        index: Number of the stage, from 0.

    Raises:
        RefusedError: If the stage's solver draws noise.
    """
    stage, solver = schedule.stages[index], schedule.solver_of(index)
    if draws_noise(solver):
        raise RefusedError(
            target, index, f"solver {solver!r} draws noise of its own", "use a solver that draws none"
        )
    levels = [*call_sigmas(solver, stage.sigmas, stage.reuse), stage.sigmas[-1]]
    states = states_of(solver, stage.sigmas, stage.reuse, len(levels) - 1)
    return tuple(
        Call(levels[k], levels[k + 1], _corrections(states[: k + 2], levels[: k + 2]))
        for k in range(len(levels) - 1)
    )


def states_of(solver: str, sigmas: Sequence[float], reuse: Sequence[int], calls: int) -> list[Row]:
    """Returns the latent of every call and the last one, by running the solver on rows of weights."""
    import numpy as np

    states: list[Row] = []
    clean = np.eye(calls + 1)

    def velocity(x: Row, sigma: float) -> Row:
        states.append(x)
        slope: Row = (x - clean[len(states)]) / sigma
        return slope

    last = solve(solver, reusing(velocity, sigmas, reuse), clean[0], sigmas, lambda _: clean[0])
    return [*states, last]


def _corrections(states: Sequence[Row], levels: Sequence[float]) -> tuple[Correction, ...]:
    """Finds the fewest earlier calls whose predictions make the last step of these.

    Args:
        states: The latents of some calls, and the one that the step after the last call leads to.
        levels: Their noise levels.
    """
    import numpy as np

    count = len(states) - 1
    clean = np.eye(len(states[0]))[1 : count + 1]
    noise = [(states[k] - (1 - levels[k]) * clean[k]) / levels[k] for k in range(count)]
    following = levels[-1]
    added = states[-1] - (1 - following) * clean[-1] - following * noise[-1]
    if np.abs(added).max() < _SAME:
        return ()
    for back in range(1, count):
        earlier = range(1, back + 1)
        of_clean = [clean[-1 - i] - clean[-1] for i in earlier]
        of_noise = [noise[-1 - i] - noise[-1] for i in earlier]
        for clean_part, noise_part in ((1, 0), (0, 1), (1, 1)):
            terms = np.array(of_clean * clean_part + of_noise * noise_part).T
            weights = np.linalg.lstsq(terms, added, rcond=None)[0]
            if np.abs(terms @ weights - added).max() < _SAME:
                found = weights.tolist()
                zeros = [0.0] * back
                cleans = found[:back] if clean_part else zeros
                noises = found[-back:] if noise_part else zeros
                return tuple(map(Correction, earlier, cleans, noises))
    raise ValueError("a solver is not linear in what the network predicts.")
