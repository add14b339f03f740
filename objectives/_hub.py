"""Fetching weights from the Hugging Face Hub without a long wait where there is no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit


@contextmanager
def no_wait_without_network() -> Iterator[None]:
    """Within it, hub calls answer from the cache or fail at once if the hub cannot be resolved.

    Without it, every missing file costs half a minute of retries before the user learns why.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _resolves(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def download(repo: str, file_name: str) -> Path:
    """Returns the local path of a file of a hub repository, fetched if it is not in the cache.

    Raises:
        OSError: If the file is neither in the cache nor reachable.
    """
    from huggingface_hub import hf_hub_download

    with no_wait_without_network():
        return Path(hf_hub_download(repo, file_name))


def _resolves(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # behind a proxy this machine need not resolve the name itself
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True
