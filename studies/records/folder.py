"""The folder of a run: scores, images, whole files, and a lock."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        return sorted((self.path / "images" / schedule_hash).glob("*.png"))

    def write_images(self, schedule_hash: str, first: int, images: tuple[bytes, ...]) -> None:
        """Writes images of a schedule, numbered from ``first``."""
        folder = self.path / "images" / schedule_hash
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images, start=first):
            (folder / f"{index:03d}.png").write_bytes(image)

    def write(self, name: str, text: str) -> Path:
        """Replaces a file atomically."""
        partial = self.path / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)
        return self.path / name

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

        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"{self.name!r} in {str(self.path.parent)!r} is being run by another process; wait for it, or "
                    "choose another name."
                ) from None
            yield
