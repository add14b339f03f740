"""What a saved pipeline's configuration may say: anything, since people write it, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.errors import UserError, one_line

_LARGEST = 100_000
"""No number of a published network is more than a sixth of it."""
_MOST_LAYERS = 1000
_LARGEST_GRID = 4096
_WRONG = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)


@contextlib.contextmanager
def trusting(name: str, part: str) -> Iterator[None]:
    """Turns what a wrong configuration makes the code inside the context raise into one line.

    Args:
        name: The model, for the message.
        part: Whose configuration is read inside, for the message.

    Raises:
        UserError: If anything is wrong with it.
    """
    try:
        yield
    except UserError:
        raise
    except _WRONG as error:
        raise UserError(
            f"The configuration of the {part} of {name!r} cannot be used ({type(error).__name__}: "
            f"{one_line(error)[:300]}); take the one that the model was published with."
        ) from error


def check_network(source: str, config: Mapping[str, Any]) -> None:
    """Checks that a network can be built in a reasonable time and memory.

    Args:
        source: The model, for the message.
        config: The network's configuration.

    Raises:
        UserError: If a number is larger than that of any network, or is none.
    """
    for key, value in config.items():
        limit = _MOST_LAYERS if "layer" in key else _LARGEST_GRID if "size" in key else _LARGEST
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= limit:
                raise UserError(f"`{key}` of {source!r} must be at most {limit}, but it is {number}; correct it.")
