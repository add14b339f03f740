"""Reads text files that users hand over, within stated limits, and writes files that they ask for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tuner.errors import UserError, readable, unwritable

MEBIBYTE = 2**20


def read_text(path: str | os.PathLike[str], kind: str, most_bytes: int, remedy: str) -> str:
    """Reads a regular file as UTF-8 text, with or without a byte order mark.

    Devices and pipes are refused, because they may never end.

    Args:
        path: The file.
        kind: What it is, capitalised, for messages, e.g. ``"Preset"``.
        most_bytes: The largest size that is read.
        remedy: What to give instead, for messages.

    Raises:
        UserError: If the file is missing, is not a regular file, is too large, or is not text.
    """
    shown = f"{kind} {readable(os.fspath(path))!r}"
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{shown} is a folder; {remedy}.")
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{shown} is a device or a pipe, not a regular file; save it to a file first.")
        if found.st_size > most_bytes:
            raise UserError(
                f"{shown} has {found.st_size:,} bytes, and at most {most_bytes:,} are read; split or shorten it."
            )
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{shown} does not exist; {remedy}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{shown} cannot be read ({error.strerror}); check its name and permissions.") from None
    except ValueError:  # a zero byte in the path, or a surrogate that the file system cannot encode
        raise UserError(f"{shown} cannot be the name of a file; {remedy}.") from None
    if "\0" in text:
        raise UserError(f"{shown} is not text: it has zero bytes; {remedy}.")
    return text


def write(path: Path, kind: str, content: bytes) -> None:
    """Writes a file that a user asked for, and makes its folder.

    Args:
        path: The file.
        kind: What it is, capitalised, for messages, e.g. ``"Preset"``.
        content: All of it.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(kind, path, error) from error
