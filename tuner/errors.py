"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the remedy.

    The command line prints it as one line and exits with code 2; it never shows a traceback.
    """


def unknown_name(kind: str, name: str, available: Iterable[str]) -> UserError:
    """Builds the error for a name that is not registered, with the nearest registered names.

    Args:
        kind: What was looked up, in the singular, e.g. ``"model"``.
        name: The name that was not found.
        available: Every name that would have been accepted.
    """
    names = sorted(available)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names)}.")
