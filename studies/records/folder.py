"""What every kind of run keeps on disk: scores, images, whole files, and who works on it."""

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
    """A folder that one process at a time writes, so that whatever stops it can be gone on with."""

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
        """Keeps images of a schedule, from number ``first`` on."""
        folder = self.path / "images" / schedule_hash
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images, start=first):
            (folder / f"{index:03d}.png").write_bytes(image)

    def write(self, name: str, text: str) -> Path:
        """Writes a file in one piece."""
        partial = self.path / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)
        return self.path / name

    def check_writable(self, option: str) -> None:
        """Makes the folder and makes sure that files can be made in it.

        Args:
            option: What the user may give to choose another place.

        Raises:
            UserError: If they cannot.
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
        """Keeps other processes from working in the folder; the operating system frees it, even after a kill.

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
