"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable

_CREDENTIALS = (
    re.compile(r"(?<=://)([^\s/@:]*):[^\s/]*@"),  # user:password@host; the last @ before the path ends it
    re.compile(r"(?<=[?&])((?:ssl)?password|passwd|token|secret|access_key)=[^\s&'\"]*", re.IGNORECASE),
)

LONGEST_LINE = 2000
"""Characters of the longest error that is shown."""


def masked(text: str) -> str:
    """Replaces the passwords of all URLs in a text by ``***``, so that it may be shown, stored or logged."""
    text = _CREDENTIALS[0].sub(r"\1:***@", text)
    return _CREDENTIALS[1].sub(r"\1=***", text)


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the remedy.

    The command line prints it as one line and exits with code 2; it never shows a traceback.
    Passwords in URLs are masked.
    """

    def __init__(self, message: str):
        super().__init__(masked(message))


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


def unwritable(kind: str, path: os.PathLike[str], error: OSError) -> UserError:
    """Builds the error for a file that cannot be written.

    Args:
        kind: What would have been written, capitalised, e.g. ``"Preset"``.
        path: Where to.
        error: What the operating system said.
    """
    return UserError(f"{kind} {os.fspath(path)!r} cannot be written ({error.strerror}); choose a writable place.")


def one_line(message: object) -> str:
    """Puts a message, e.g. another library's error, on one line of at most `LONGEST_LINE` characters.

    Passwords in URLs are masked, and characters that control a terminal are replaced.
    """
    line = masked(readable(" ".join(str(message).split())))
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE - 400]} [...] {line[-380:]}"  # rule and remedy stand at the end
    return line


def readable(text: str) -> str:
    r"""Replaces what a terminal would obey or cannot show by its escape, e.g. ``\x1b``.

    These are control characters (Unicode Cc), but for tabs and line ends, format characters (Cf), which reorder or
    hide text, and lone surrogates (Cs). Joiners stay, because emoji and many scripts need them.
    """
    return "".join(one if _is_readable(one) else one.encode("unicode_escape").decode("ascii") for one in text)


def _is_readable(character: str) -> bool:
    kept = character in "\t\n\u200c\u200d"
    return kept or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
