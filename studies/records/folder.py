"""The folder of a run: scores, images, whole files, and a lock."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tuner.errors import UserError


@dataclass(frozen=True)
class Folder:
    """A folder that one process at a time writes, so that an interrupted run can continue."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def scores(self) -> Path:
        """The file of finished evaluations."""
        return self.path / "scores.jsonl"

    def images(self, schedule_hash: str) -> list[Path]:
        """Lists the kept images of a schedule, in the order of the prompts."""
        found = (self.path / "images" / schedule_hash).glob("*.png")
        return sorted((path for path in found if _is_kept_image(path)), key=lambda path: int(path.stem))

    def write_images(self, schedule_hash: str, first: int, images: tuple[bytes, ...]) -> None:
        """Writes images of a schedule, numbered from ``first``."""
        folder = self.path / "images" / schedule_hash
        with saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for index, image in enumerate(images, start=first):
                replace_file(folder / f"{index:03d}.png", image)

    def write(self, name: str, text: str) -> Path:
        """Replaces a file atomically."""
        with saving(self.path / name):
            return replace_file(self.path / name, text.encode())

    def set_aside(self, path: Path, reason: str) -> None:
        """Renames a broken file of this folder, so that another can be written in its place, and says so.

        Args:
            path: The file.
            reason: What is wrong with it.
        """
        place = path.with_name(f"{path.name}.rejected")
        with saving(path):
            os.replace(path, place)
        warnings.warn(f"{str(path)!r} was moved to {str(place)!r}: {reason}; it is written anew.", stacklevel=3)

    def check_writable(self, option: str) -> None:
        """Makes the folder and checks that files can be written in it.

        Args:
            option: The option that chooses another folder, for the message.

        Raises:
            UserError: If the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):  # a name of its own: another search may start here, too
                pass
        except OSError as error:
            raise UserError(
                f"Folder {str(self.path)!r} cannot be written ({error.strerror}); choose a writable place with "
                f"{option}."
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder against other processes; the operating system frees the lock, even after a kill.

        Raises:
            UserError: If another process works in it.
        """
        import fcntl

        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.name!r} in {str(self.path.parent)!r} is being run by another process; wait for it, or "
                    "choose another name."
                ) from None
            except OSError as error:
                raise UserError(
                    f"The file system of folder {str(self.path)!r} cannot lock files ({error.strerror}), so two "
                    "processes could write one study; choose a local disk with --out."
                ) from None
            yield

    def _lock_file(self) -> IO[str]:
        with saving(self.path / "lock"):
            return (self.path / "lock").open("w")


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns errors of the operating system inside the context into one that tells what to do.

    Args:
        path: What is being written.

    Raises:
        UserError: If the disk is full, the folder is gone, or anything else keeps the file from being written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); what was finished is saved: make room, "
            "or make the folder writable, and run the same command with --resume."
        ) from error


def replace_file(path: Path, content: bytes) -> Path:
    """Writes a file in one piece: a reader finds the old content or the new, even after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return path


def append(path: Path, content: bytes) -> None:
    """Appends to a file, synced, all or nothing: where the disk is full, the file is as it was."""
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def _is_kept_image(path: Path) -> bool:
    """Whether a file is one that `Folder.write_images` names; people leave other files beside them."""
    return path.stem.isascii() and path.stem.isdigit() and path.is_file()
