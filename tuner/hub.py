"""Files from a URL or the Hugging Face hub, and the way back: a commit on the hub.

huggingface_hub does the work, so ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``hf auth login`` count.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import cast

from tuner.errors import UserError, one_line, readable

DEFAULT_FILE = "preset.yaml"
"""The file of a repository that is read if none is named."""
FORM = "OWNER/NAME[:FILE.yaml][@REVISION]"
"""How a file on the hub is written."""
TIMEOUT = 10.0
"""Seconds that a server may stay silent."""

_PART = r"[A-Za-z0-9][\w.-]*"
_REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_PLACE = re.compile(rf"(?P<repo>{_REPO.pattern})(?::(?P<file>[^@:]+))?(?:@(?P<revision>[^@:]+))?", re.ASCII)
_LOGIN = "log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class HubFile:
    """A file on the hub; no revision is the repository's main branch."""

    repo: str
    file: str = DEFAULT_FILE
    revision: str | None = None

    def beside(self, name: str, path: Path) -> HubFile:
        """Returns the place of a file beside this one, in the very commit that this one was fetched from.

        Args:
            name: Relative to the folder of this file.
            path: Where `fetch` put this file.
        """
        here = PurePosixPath(self.file)
        commit = path.parents[len(here.parts) - 1].name  # the cache has snapshots/COMMIT/FILE
        return replace(self, file=str(here.parent / name), revision=commit)

    def __str__(self) -> str:
        return f"{self.repo}:{self.file}" + (f"@{self.revision}" if self.revision else "")


def is_url(text: str) -> bool:
    """Whether this is the address of a file on the web."""
    return text.startswith(("http://", "https://"))


def is_repo(text: str) -> bool:
    """Whether this may be the name of a repository, ``owner/name``."""
    return _REPO.fullmatch(text) is not None


def place(text: str) -> HubFile | None:
    """Reads `FORM`; None if the text has another form, as ``folder/file.yaml`` has."""
    found = _PLACE.fullmatch(text)
    if found is None or found["repo"].endswith((".yaml", ".yml")):
        return None
    return HubFile(found["repo"], found["file"] or DEFAULT_FILE, found["revision"])


def read_url(url: str, most_bytes: int) -> str:
    """Reads a text file from the web.

    Args:
        url: Its address.
        most_bytes: The largest size that is read.

    Raises:
        UserError: If nothing answers, or if the answer is an error, a web page, too large, or not text.
    """
    shown = f"Preset {readable(url)!r}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            data: bytes = answer.read(most_bytes + 1)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{shown} was not found: the server answered {error.code} {error.reason}; check the address."
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = one_line(getattr(error, "reason", None) or error)
        raise UserError(
            f"{shown} cannot be fetched ({reason}); check the address and the network, or give a file."
        ) from None
    if len(data) > most_bytes:
        raise UserError(f"{shown} has more than {most_bytes:,} bytes, which is no preset; check the address.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} is not UTF-8 text (byte {error.start}); check the address.") from None
    if text.lstrip()[:9].lower().startswith(("<!doctype", "<html")):
        raise UserError(f"{shown} is a web page; give the address of the raw YAML file.")
    return text


def fetch(wanted: HubFile) -> Path:
    """Downloads a file from the hub, or finds it in the cache of huggingface_hub.

    Raises:
        UserError: If there is none, or if it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    if ".." in PurePosixPath(wanted.file).parts or wanted.file.startswith("/"):
        raise UserError(f"File {wanted.file!r} leaves the repository {wanted.repo!r}; name one inside it.")
    with _explained(str(wanted)):
        return Path(hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision))


def upload(
    repo: str,
    files: Mapping[str, bytes | Path],
    message: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Commits files to a model repository, which is created if need be; returns the commit's address.

    Args:
        repo: ``owner/name``.
        files: Contents, or the local file, by the name in the repository.
        message: Of the commit.
        private: Whether nobody else may see a new repository.
        revision: The branch, created if need be; the main branch if None.

    Raises:
        UserError: If the hub refuses, if nothing answers, or if ``private`` is asked of a public repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with _explained(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise UserError(
                f"Repository {repo!r} exists and is public, and --private was asked for; make it private in its "
                "settings, or choose another name."
            )
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return str(api.create_commit(repo, operations, commit_message=message, revision=revision).commit_url)


@contextlib.contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub into ours."""
    from huggingface_hub import constants, errors

    # The HTTP client's own base class, whichever client this release of huggingface_hub uses.
    transport = cast(type[Exception], errors.HfHubHTTPError.__bases__[0])
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError:
        remedy = f"accept its terms on its page, then {_LOGIN}"
        raise UserError(f"{shown!r} is in a gated repository of the hub; {remedy}.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{shown!r} is no local file, and the hub has no such repository, or a private one; check the name, "
            f"or {_LOGIN}."
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{shown!r} names no branch, tag or commit of its repository; check what follows @."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE forbids to ask the hub; unset it, or give a local file"
        else:
            reason = one_line(error.__cause__ or error)[:200]
            why = f"{constants.ENDPOINT} did not answer ({reason}); check the network"
        raise UserError(f"{shown!r} is no local file and not in the hub's cache, and {why}.") from None
    except errors.EntryNotFoundError:
        raise UserError(f"{shown!r} is no file of its repository on the hub; name one, as {FORM}.") from None
    except (transport, errors.HFValidationError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = (
            f"{_LOGIN}, with a token that may write there" if status in (401, 403) else "check name and network"
        )
        raise UserError(f"The hub refused {shown!r} ({one_line(error)[:200]}); {remedy}.") from None
