"""Finding the one file that holds the weights of a scorer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.errors import UserError, one_line


def find_weights(name: str, file_name: str, weights: str | None, fetch: Callable[[], Path]) -> Path:
    """Returns the local path of the weights, fetched if the user names none.

    Args:
        name: The objective's name.
        file_name: What the published file is called.
        weights: The file, or a folder that holds it under its published name; None to fetch it.
        fetch: Downloads it, or finds it where it was downloaded before.

    Raises:
        UserError: If it is not there, or cannot be fetched.
    """
    if weights is None:
        try:
            return fetch()
        except OSError as error:
            raise UserError(
                f"{name} needs {file_name!r} and cannot fetch it: {one_line(error)}. Without network, give the "
                f"file or a folder that holds it: {name}:/path/to/{file_name}."
            ) from error
    path = Path(weights).expanduser()
    path = path / file_name if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"{name} weights {weights!r}: there is no file {str(path)!r}. Give {file_name} or its folder."
        )
    return path


def fetch_url(url: str, file_name: str) -> Path:
    """Returns a file in torch's own cache, fetched if it is not there yet.

    Raises:
        OSError: If it is neither in the cache nor reachable.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def read_state(name: str, path: Path) -> dict[str, Any]:
    """Reads a PyTorch state dict onto the CPU, without running any code that it may hold.

    Raises:
        UserError: If the file is none.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise wrong_weights(name, path, error) from error
    if not isinstance(state, dict):
        raise wrong_weights(name, path, f"it holds a {type(state).__name__}")
    return state


def wrong_weights(name: str, path: Path, reason: object) -> UserError:
    """Builds the error for a file that holds something else than the weights of a scorer."""
    return UserError(
        f"{str(path)!r} does not hold weights of {name}: {one_line(reason)[:300]}. Take the published file."
    )
