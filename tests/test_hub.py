"""Presets from a URL and the hub, and the way there, with servers on this machine that answer as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import constants

from tuner import hub, presets
from tuner.cli.main import app
from tuner.errors import UserError
from tuner.models import ModelOptions
from tuner.presets import MOST_BYTES, Cost, Preset, Provenance, Score
from tuner.schedule import Schedule, Stage

TOKEN = "hf_secretsecretsecretsecret"
COMMITS = {name: f"{number:040x}" for number, name in enumerate(["main", "v2"], start=1)}
PRESET = Preset(
    name="mine",
    model="flux",
    source="study mine",
    height=512,
    width=768,
    schedule=Schedule(
        stages=(Stage(scale=0.5, sigmas=(1, 0.7, 0)), Stage(sigmas=(0.6, 0.3, 0), resample="nearest"))
    ),
    cost=Cost(tflops=12.5, nfe=4, speedup=7),
    scores={"clip": Score(mean=0.31, delta=0.01, ci95=(-0.02, 0.04))},
    provenance=Provenance(
        study="mine",
        trial=3,
        seed=0,
        image_seeds=0,
        prompts_hash="x",
        prompts=8,
        objectives=("clip",),
        versions={},
        created="2026-01-01",
    ),
)


class Hub:
    """What the fake hub has: files by repository and branch, and who asked."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.authorizations: set[str | None] = set()
        self.url = ""

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """Returns the files of a branch or of the commit at its tip."""
        names = {commit: name for name, commit in COMMITS.items()}
        return self.repos[repo].get(names.get(revision, revision))


def _handler(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Endpoints of the hub that huggingface_hub calls here, after its API's documentation."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _json(self, value: Any, code: int = 200) -> None:
            self._answer(code, json.dumps(value).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
                if found[1] not in state.private:
                    return self._answer(404, X_Error_Code="RepoNotFound")
                return self._json({"id": found[1], "private": state.private[found[1]]})
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if found is None or found[1] not in state.repos:
                return self._answer(404, X_Error_Code="RepoNotFound")
            if found[1] == "owner/gated":
                return self._answer(403, X_Error_Code="GatedRepo")
            files = state.files(found[1], found[2])
            if files is None:
                return self._answer(404, X_Error_Code="RevisionNotFound")
            revision = COMMITS.get(found[2], found[2])
            if found[3] not in files:
                return self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=revision)
            body = files[found[3]]
            return self._answer(200, body, X_Repo_Commit=revision, ETag=f'"{hashlib.sha1(body).hexdigest()}"')

        do_HEAD = do_GET

        def do_POST(self) -> None:
            state.authorizations.add(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._json({"error": "Invalid username or password."}, 401)
            path = unquote(urlsplit(self.path).path)
            if path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}"
                code = 409 if repo in state.repos else 200
                state.repos.setdefault(repo, {"main": {}})
                private = asked.get("visibility") == "private" or bool(asked.get("private"))
                state.private.setdefault(repo, private)
                return self._json({"url": f"{state.url}/{repo}", "id": repo}, code)
            if path == "/api/validate-yaml":
                return self._json({"errors": [], "warnings": []})
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
            assert found is not None, path
            branches = state.repos[found[1]]
            if found[2] == "branch":
                branches.setdefault(found[3], dict(branches["main"]))
                return self._json({})
            if found[2] == "preupload":
                files = json.loads(body)["files"]
                modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
                return self._json({"files": modes})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    branches[found[3]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = COMMITS[found[3]]
            return self._json({"commitUrl": f"{state.url}/{found[1]}/commit/{commit}", "commitOid": commit})

    return Handler


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    state = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(state)) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def online(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The hub is the server of this file, empty, with an empty cache and a token."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.repos.clear()
    server.private.clear()
    server.authorizations.clear()
    return server


def push(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["push", *arguments], catch_exceptions=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return presets.save(PRESET, tmp_path / "mine.yaml")


def test_what_was_pushed_is_loaded_by_its_name(online: Hub, file: Path) -> None:
    done = push(str(file), "owner/name", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["files"] == ["README.md", "preset.yaml", "schedule.png"]
    assert printed["url"] == f"{online.url}/owner/name/commit/{COMMITS['main']}"
    assert presets.load("owner/name") == PRESET
    assert TOKEN not in done.output
    assert online.authorizations == {f"Bearer {TOKEN}"}


def test_what_was_pushed_is_found_offline(online: Hub, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert push(str(file), "owner/name").exit_code == 0
    presets.load("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert presets.load("owner/name") == PRESET


def test_the_card_says_what_it_is(online: Hub, file: Path) -> None:
    assert push(str(file), "owner/name", "--license", "mit").exit_code == 0
    files = online.repos["owner/name"]["main"]
    assert files["schedule.png"].startswith(b"\x89PNG")
    _, head, body = files["README.md"].decode().split("---\n", 2)
    expected = {"base_model": "black-forest-labs/FLUX.1-dev", "license": "mit", "tags": ["tuner"]}
    assert yaml.safe_load(head) == expected
    assert "(schedule.png)" in body
    assert "| 1 | 0.5 | euler | 2 | 1, 0.7, 0 |" in body
    assert "| 12.5 | 4 | 7.00x |" in body
    assert "| clip | 0.31 | +0.01 | [-0.02, +0.04] |" in body
    assert 'tuner sample owner/name "' in body
    assert "tuner eval --verify owner/name" in body


@pytest.mark.parametrize("weight", ["", ":0.5"])
def test_a_lora_travels_with_its_preset(online: Hub, tmp_path: Path, weight: str) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    options = ModelOptions(lora=f"./mine.safetensors{weight}", guidance=2)
    file = presets.save(PRESET.model_copy(update={"model_options": options}), tmp_path / "mine.yaml")
    assert push(str(file), "owner/name", "--revision", "v2").exit_code == 0
    loaded = presets.load("owner/name@v2").model_options
    assert loaded is not None
    source, factor = loaded.lora_and_weight()
    assert Path(source).name == "mine.safetensors"
    assert Path(source).read_bytes() == b"weights"
    assert Path(source).is_relative_to(tmp_path / "cache")
    assert (factor, loaded.guidance) == (float(weight[1:] or 1), 2)
    assert online.repos["owner/name"]["main"] == {}


def test_a_file_and_a_revision_can_be_named(online: Hub) -> None:
    other = PRESET.model_copy(update={"name": "other"})
    main, v2 = (presets.to_yaml(one).encode() for one in (PRESET, other))
    online.repos["owner/name"] = {"main": {"sub/x.yaml": main}, "v2": {"sub/x.yaml": v2}}
    assert presets.load("owner/name:sub/x.yaml") == PRESET
    assert presets.load("owner/name:sub/x.yaml@v2") == other
    assert presets.load(f"owner/name:sub/x.yaml@{COMMITS['v2']}") == other


def test_a_local_path_comes_first(online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online.repos["owner/name"] = {"main": {"preset.yaml": presets.to_yaml(PRESET).encode()}}
    local = PRESET.model_copy(update={"name": "local"})
    presets.save(local, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert presets.load("owner/name") == local


def test_every_command_that_takes_a_preset_takes_one_of_the_hub(online: Hub, file: Path) -> None:
    online.repos["owner/name"] = {"main": {"preset.yaml": file.read_bytes()}}
    shown = CliRunner().invoke(app, ["export", "owner/name", "--format", "yaml"])
    assert shown.stdout == file.read_text()
    online.repos["owner/plain"] = {"main": {"preset": file.read_bytes()}}
    url = f"{online.url}/owner/plain/resolve/main/preset"
    assert CliRunner().invoke(app, ["export", url, "--format", "yaml"]).stdout == file.read_text()


def test_a_url_is_loaded(online: Hub, file: Path) -> None:
    online.repos["owner/name"] = {"main": {"x.yaml": file.read_bytes()}}
    assert presets.load(f"{online.url}/owner/name/resolve/main/x.yaml") == PRESET


LORA = presets.to_yaml(PRESET.model_copy(update={"model_options": ModelOptions(lora="./x.safetensors")})).encode()
ESCAPING = LORA.replace(b"./x.safetensors", b"./../../x.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "404"),
        (b"<!DOCTYPE html><p>: [", "is a web page; give the address of the raw YAML file"),
        (b"a: [", "is not valid YAML"),
        (b"name: x", "breaks a rule"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"#" * (MOST_BYTES + 1), f"more than {MOST_BYTES:,} bytes"),
        (LORA, "needs the LoRA 'x.safetensors' beside it"),
    ],
)
def test_a_url_that_is_no_preset_is_refused(online: Hub, content: bytes | None, message: str) -> None:
    online.repos["owner/name"] = {"main": {} if content is None else {"x.yaml": content}}
    _refused(lambda: presets.load(f"{online.url}/owner/name/resolve/main/x.yaml"), message)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x.yaml", "http://[/x.yaml", "http://", "https://a b/\n", "http://.."]
)
def test_a_url_that_does_not_answer_is_refused(url: str) -> None:
    _refused(lambda: presets.load(url), "check the address and the network")


def test_a_password_in_a_url_is_not_shown(online: Hub) -> None:
    with pytest.raises(UserError) as caught:
        presets.load(f"{online.url}/nothing.yaml?token={TOKEN}")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/missing", "the hub has no such repository, or a private one"),
        ("owner/gated", "accept its terms"),
        ("owner/name:none.yaml", "is no file of its repository"),
        ("owner/name@none", "names no branch, tag or commit"),
        ("owner/name:../x.yaml", "leaves the repository"),
        ("owner/name:escaping.yaml", "leaves the repository"),
        ("owner/name:alone.yaml", "'owner/name:x.safetensors@"),
        ("owner/name:broken.yaml", "Preset 'owner/name:broken.yaml' is not valid YAML"),
        ("owner/na--me", "The hub refused"),
    ],
)
def test_a_name_that_is_no_preset_of_the_hub_is_refused(online: Hub, name: str, message: str) -> None:
    files = {"broken.yaml": b"a: [", "escaping.yaml": ESCAPING, "alone.yaml": LORA}
    online.repos |= {"owner/name": {"main": files}, "owner/gated": {"main": {}}}
    _refused(lambda: presets.load(name), message)


def test_without_a_hub_the_reason_is_told(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(lambda: presets.load("owner/name"), "HF_HUB_OFFLINE forbids to ask the hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its retries
    template = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    _refused(lambda: presets.load("owner/name"), "http://127.0.0.1:1 did not answer")


@pytest.mark.parametrize(
    "name", ["folder/mine.yaml", "runs/a/preset.yaml", "owner/name@v2:x.yaml", "../x", "a/", "/a/b"]
)
def test_other_forms_are_names_of_files(
    online: Hub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # nothing of these names lies here
    assert hub.place(name) is None
    _refused(lambda: presets.load(name), "does not exist; give a file, a URL")


def test_a_push_without_login_says_how(online: Hub, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    done = push(str(file), "owner/name")
    assert isinstance(done.exception, UserError)
    assert "HF_TOKEN, with a token that may write there" in str(done.exception)
    assert "hf_wrongwrongwrong" not in str(done.exception)


def test_a_push_offline_says_why(online: Hub, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset it" in str(push(str(file), "owner/name").exception)


def test_private_never_publishes(online: Hub, file: Path) -> None:
    assert push(str(file), "owner/own", "--private").exit_code == 0
    assert online.private == {"owner/own": True}
    assert push(str(file), "owner/open").exit_code == 0
    before = dict(online.repos["owner/open"]["main"])
    changed = presets.save(PRESET.model_copy(update={"name": "changed"}), file)
    assert "exists and is public" in str(push(str(changed), "owner/open", "--private").exception)
    assert online.repos["owner/open"]["main"] == before


def test_what_others_cannot_use_is_not_pushed(online: Hub, tmp_path: Path) -> None:
    own = PRESET.model_copy(update={"model": str(tmp_path)})
    assert "which nobody else has" in str(
        push(str(presets.save(own, tmp_path / "a.yaml")), "owner/name").exception
    )
    options = ModelOptions(lora="./none.safetensors")
    lost = PRESET.model_copy(update={"model_options": options})
    assert "is no file" in str(push(str(presets.save(lost, tmp_path / "b.yaml")), "owner/name").exception)
    assert "is no OWNER/NAME" in str(push("swd-flux-4", "name").exception)
    assert online.repos == {}


def _refused(load: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
