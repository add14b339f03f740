"""What is sent to the workers of a cluster; no cluster is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import studies.workers.cargo as cargo_module
import tuner
from studies.work.own_options import OwnOptions
from studies.work.task import Task
from studies.workers.cargo import Cargo, cargo_of, missing
from studies.workers.nodes import workers_of
from studies.workers.ray_connection import passed_variables
from tests.studies.toy import TOY
from tuner.errors import UserError
from tuner.models import ModelOptions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose modules are forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("sent_"):
            del sys.modules[name]


def folder(path: Path, size: int = 3) -> Path:
    path.mkdir(parents=True)
    (path / "weights").write_bytes(bytes(size))
    return path


def test_small_files_are_sent_and_found_from_the_workers_folder(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder(here / "model")
    folder(here / "scorer@1")
    (here / "some.safetensors").write_bytes(b"lora")
    options = ModelOptions(lora="some.safetensors:0.5")
    specs = ["clip:scorer@1@float16", "image_reward:tiny", "pickscore"]
    cargo = cargo_of("model", specs, [options])
    there = tmp_path_factory.mktemp("there")
    cargo.pack(there)
    os.chdir(there)
    assert Path(cargo.model("model"), "weights").read_bytes() == bytes(3)
    source, weight = cargo.options(options).lora_and_weight()
    assert (Path(source).read_bytes(), Path(source).suffix, weight) == (b"lora", ".safetensors", 0.5)
    scorer = cargo.objective(specs[0])
    assert scorer.startswith("clip:")
    assert scorer.endswith("@float16")
    assert Path(scorer.removeprefix("clip:").removesuffix("@float16"), "weights").exists()
    assert [cargo.objective(spec) for spec in specs[1:]] == specs[1:]
    assert missing(cargo, tuner.__version__) is None


def test_large_files_must_be_on_every_node(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo_module, "MOST_SENT", 10)
    folder(here / "model", 11)
    cargo = cargo_of("./model", ["clip"], [])
    assert cargo.model("./model") == str(here / "model")
    assert not cargo.sent
    assert missing(cargo, tuner.__version__) is None
    (here / "model").rename(here / "elsewhere")
    reason = missing(cargo, tuner.__version__)
    assert reason is not None
    assert repr(str(here / "model")) in reason


@pytest.mark.parametrize("name", ["flux", "owner/name"])
def test_what_is_on_a_hub_is_left_there(here: Path, name: str) -> None:
    options = ModelOptions(lora="owner/lora")
    cargo = cargo_of(name, ["clip:ViT-B-32/laion2b_s34b_b79k"], [options])
    assert cargo == Cargo()
    assert cargo.options(options) == options


def test_a_short_name_is_no_folder_of_the_same_name(here: Path) -> None:
    folder(here / "tiny")
    assert cargo_of("tiny", ["clip:tiny"], []) == Cargo()


def test_a_task_takes_its_own_lora_along(here: Path) -> None:
    (here / "own.safetensors").write_bytes(b"lora")
    own = OwnOptions(ModelOptions(lora=str(here / "own.safetensors")), "digest")
    cargo = cargo_of("tiny", [], [own.options])
    task = Task(TOY.plain(2), ("a",), (0,), TOY.size, own=own)
    sent = cargo.own(task)
    assert sent.own is not None
    assert sent.own.options.lora in cargo.sent
    assert sent.key == task.key
    assert cargo.own(Task(TOY.plain(2), ("a",), (0,), TOY.size)).own is None


def test_own_modules_are_sent_with_what_they_import_and_nothing_else(here: Path) -> None:
    (here / "sent_helper.py").write_text("VALUE = 1.0")
    (here / "sent_score.py").write_text(
        "from sent_helper import VALUE\ndef fn(images, prompts):\n    return [VALUE for _ in images]\n"
    )
    (here / "sent_unused.py").write_text("raise RuntimeError")
    (here / "private.txt").write_text("a secret")
    from objectives import load

    load("sent_score:fn")
    cargo = cargo_of("tiny", ["sent_score:fn"], [])
    assert set(cargo.sent) == {"sent_helper.py", "sent_score.py"}
    assert cargo.imported == ("sent_score",)


def test_own_modules_that_are_too_large_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo_module, "MOST_SENT", 100)
    (here / "sent_package").mkdir()
    (here / "sent_package" / "__init__.py").write_text("def fn(images, prompts):\n    return []\n")
    (here / "sent_package" / "data").write_bytes(bytes(100))
    from objectives import load

    load("sent_package:fn")
    with pytest.raises(UserError, match=r"sent_package in the current folder .* install them on every node"):
        cargo_of("tiny", ["sent_package:fn"], [])


def test_a_node_says_what_it_lacks() -> None:
    reason = missing(Cargo(imported=("no_such_module",)), tuner.__version__)
    assert reason is not None
    assert "'no_such_module' cannot be imported" in reason
    assert "0.0.1; install one version" in str(missing(Cargo(), "0.0.1"))


@pytest.mark.parametrize(
    ("resources", "gpus", "fitting"),
    [
        ({"CPU": 64, "GPU": 8}, 0.4, 16),  # no share lies on two GPUs
        ({"CPU": 64, "GPU": 8}, 0.5, 16),
        ({"CPU": 64, "GPU": 8}, 1 / 3, 24),
        ({"CPU": 64, "GPU": 8}, 0.1, 64),  # a core each
        ({"CPU": 64, "GPU": 8}, 3, 2),
        ({"CPU": 64, "GPU": 8}, 0, 64),
        ({"CPU": 64}, 1, 0),
    ],
)
def test_shares_are_packed_per_node(resources: dict[str, float], gpus: float, fitting: int) -> None:
    assert workers_of(resources, gpus) == fitting


def test_only_variables_of_the_hub_and_of_torch_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("HF_HOME", raising=False)
    passed = passed_variables()
    assert passed["HF_TOKEN"] == "hf_secret"
    assert not passed.keys() & {"AWS_SECRET_ACCESS_KEY", "HF_HOME"}
