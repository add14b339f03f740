"""A user's own function as an objective: ``mypackage.score:fn``, ``(images, prompts) -> floats``."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any, cast, get_args

from objectives.base import About, Direction, check_pairs
from tuner.errors import UserError, one_line, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

DIRECTIONS = get_args(Direction)


class Custom:
    """A function that takes a list of PIL images and a list of prompts and returns one number per prompt.

    Its direction is, in this order, what follows a second colon (``mypackage.score:fn:minimize``), the
    function's own attribute ``direction``, or ``maximize``. It is called with a worker's chunk of prompts, in the
    worker's process.

    Args:
        name: ``MODULE:FUNCTION``; the module may lie in the current directory.
        direction: ``minimize`` or ``maximize``, or None.
        others: Names that a misspelt module may have been meant for.

    Raises:
        UserError: If there is no such module or function, or it is no function, or the direction is unknown.
    """

    unit = "score"
    about = About()

    def __init__(self, name: str, direction: str | None, others: Sequence[str] = ()) -> None:
        self.name = name
        self._function = _find(name, others)
        self.direction = _direction(name, direction or getattr(self._function, "direction", DIRECTIONS[0]))

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``.

        Raises:
            ValueError: If the function does not return one finite number per prompt.
        """
        check_pairs(images, prompts)
        if not images:
            return []
        scores = self._function(list(images), list(prompts))
        try:
            values = [_number(value) for value in scores]
        except TypeError:
            raise ValueError(
                f"objective {self.name!r} must return one number per prompt, but it returned {_short(scores)}."
            ) from None
        if len(values) != len(prompts):
            raise ValueError(f"objective {self.name!r} returned {len(values)} scores for {len(prompts)} prompts.")
        if not all(map(math.isfinite, values)):
            raise ValueError(f"objective {self.name!r} returned a score that is not finite: {_short(values)}.")
        return values


def split(spec: str) -> tuple[str, str | None]:
    """Splits ``MODULE:FUNCTION[:DIRECTION]`` into ``MODULE:FUNCTION`` and the direction."""
    module, _, rest = spec.partition(":")
    function, _, direction = rest.partition(":")
    return f"{module}:{function}", direction or None


def is_custom(spec: str) -> bool:
    """Whether a spec has the form ``MODULE:FUNCTION``."""
    module, colon, rest = spec.partition(":")
    names = [*module.split("."), rest.partition(":")[0]]
    return bool(colon) and all(name.isidentifier() for name in names)


def _find(name: str, others: Sequence[str]) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    with _current_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != module_name.partition(".")[0]:
                raise _not_importable(name, error) from error  # it is there, and imports what is not
            raise UserError(
                f"{unknown_name('objective', module_name, others)} Nor is there a module {error.name!r} to take "
                f"{function_name!r} from: run from the folder that holds it, or install it."
            ) from error
        except Exception as error:  # whatever a user's module raises when it is imported
            raise _not_importable(name, error) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise UserError(f"Objective {name!r}: module {module_name!r} has nothing named {function_name!r}.")
    if not callable(function):
        raise UserError(f"Objective {name!r} is no function but {_short(function)}; name a function.")
    return cast("Callable[..., Any]", function)


def _not_importable(name: str, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {one_line(error)}"
    return UserError(f"Objective {name!r} cannot be imported, its module raises {reason}. Correct the module.")


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """A console script's path lacks the current directory, where a user's file most likely is."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _direction(name: str, direction: Any) -> Direction:
    if direction not in DIRECTIONS:
        raise UserError(f"Objective {name!r} has the direction {direction!r}; use one of {', '.join(DIRECTIONS)}.")
    return cast(Direction, direction)


def _number(value: Any) -> float:
    """Reads a Python, NumPy or torch number; text that looks like one is refused."""
    if isinstance(value, Real) or getattr(value, "ndim", None) == 0:
        return float(value)
    raise TypeError


def _short(value: object) -> str:
    return one_line(repr(value))[:100]
