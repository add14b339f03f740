"""Whatever is in a study's files, nothing of it ends a search, and nothing that can be read is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from studies import list_studies, open_study, search
from studies.records import folder as folder_module
from studies.records.score_log import EarlierScores, ScoreLog, parse_line
from studies.work.task import ChunkResult, Task
from tests.studies.test_search import comparable
from tests.studies.toy import TOY, Counting, find_blueprint, toy_settings
from tuner.errors import UserError

SPECS = {"clip": "clip:tiny"}
SCHEDULE = TOY.plain(2)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WHOLE = {
    "weights": "w",
    "schedule": "h",
    "size": [8, 8],
    "prompts": ["a fox"],
    "seeds": [1],
    "tflops": 1.0,
    "reused": {},
    "elapsed_s": 1.0,
    "scores": {"clip:tiny": [1.0]},
}
changed = st.tuples(st.sampled_from(sorted(WHOLE)), json_values).map(lambda pair: WHOLE | {pair[0]: pair[1]})
cut = st.integers(0, 60).map(lambda length: json.dumps(WHOLE).encode()[:length])
garbage = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    changed.map(lambda value: json.dumps(value).encode()),
    cut,
    st.just(b"[" * 100_000),
    st.just(b"9" * 5000),
    st.just(b"\0" * 512),  # what a file system leaves after a power cut
).map(lambda line: line.replace(b"\n", b""))


def task(number: int) -> Task:
    return Task(SCHEDULE, (f"prompt {number}",), (number,), (32, 32))


@seed(0)
@settings(max_examples=150, deadline=None)
@given(st.lists(garbage, min_size=1, max_size=4), st.data())
def test_lines_that_cannot_be_read_are_set_aside_and_no_other_is_lost(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: Any
) -> None:
    lines = [line for line in lines if parse_line(line) is None]
    path = tmp_path_factory.mktemp("log") / "scores.jsonl"
    log = ScoreLog(path, "w", SPECS, {})
    for number in range(3):
        log.put(task(number), ChunkResult({"clip": [float(number)]}), 1.0, 1.0, {})
    good = path.read_bytes().split(b"\n")[:-1]
    mixed = data.draw(st.permutations([*good, *lines]))
    lines, good = [line for line in mixed if line not in good], [line for line in mixed if line in good]
    path.write_bytes(b"".join(line + b"\n" for line in mixed))

    neighbour = EarlierScores([path], "w", SPECS, {}, "")
    if lines:
        with pytest.warns(UserWarning, match=rf"{len(lines)} of {len(mixed)} lines of .*scores.jsonl.rejected"):
            again = ScoreLog(path, "w", SPECS, {})
        assert path.with_name("scores.jsonl.rejected").read_bytes() == b"".join(line + b"\n" for line in lines)
    else:
        again = ScoreLog(path, "w", SPECS, {})
    assert path.read_bytes().split(b"\n")[:-1] == good
    for number in range(3):
        for book in (again, neighbour):
            assert book.get(task(number)) == ChunkResult({"clip": [float(number)]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished studies, `toy-3x` and `other`."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.plan.plan.blueprint", find_blueprint)
        search(toy_settings(out, trials=0), executor=Counting())
        search(toy_settings(out, trials=0, study="other"), executor=Counting())
    return out


CONTENTS = {
    "empty": b"",
    "garbage": bytes(range(256)),
    "zeros": b"\0" * 4096,
    "foreign": b'{"version": 3, "name": "of another tool"}',
    "list": b"[1, 2]",
    "deep": b'{"settings":' * 50_000,
    "digits": b'{"id": ' + b"9" * 6000 + b"}",
    "surrogate": b'["\\ud800"]',
}


def read_all(out: Path) -> None:
    study = open_study(str(out), "toy-3x")
    study.result()
    study.prompts  # noqa: B018 - reads a file


@pytest.mark.parametrize("name", ["settings.json", "prompts.json", "result.json"])
def test_a_broken_file_is_named_in_one_line(finished: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for content in CONTENTS.values():
        (out / "toy-3x" / name).write_bytes(content)
        states = {study.name: study.state for study in list_studies(str(out))}
        assert states == {"other": "finished", "toy-3x": "finished" if name == "prompts.json" else "broken"}
        with pytest.raises(UserError, match=rf"'toy-3x' in .* has a broken {name} .*--resume") as error:
            read_all(out)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("settings.json", "garbage"),
        ("prompts.json", "foreign"),
        ("result.json", "deep"),
        ("journal.log", "garbage"),
        ("journal.log", "list"),
        ("journal.log", "foreign"),
        ("scores.jsonl", "zeros"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was moved to:UserWarning", "ignore:.*were moved to:UserWarning")
def test_a_broken_file_is_written_anew_on_resume_and_stops_no_neighbour(
    finished: Path, tmp_path: Path, name: str, content: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    whole = open_study(str(out), "toy-3x").result()
    (out / "toy-3x" / name).write_bytes(CONTENTS[content] + b"\n")

    neighbour = search(toy_settings(out, trials=0, study="third"), executor=Counting())
    assert neighbour.baseline == whole.baseline

    executor = Counting()
    again = search(toy_settings(out, trials=0, reuse=False), executor=executor, resume=True)
    assert again.front == whole.front
    assert bool(executor.ran) == (name == "scores.jsonl")
    assert (out / "toy-3x" / f"{name}.rejected").read_bytes() == CONTENTS[content] + b"\n"
    assert {study.state for study in list_studies(str(out))} == {"finished"}


def test_files_that_people_leave_among_the_images_stay(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    images = out / "toy-3x" / "images"
    strays = [images / "notes.txt", images / "mine" / "x.txt", images / "mine" / "best.png"]
    images.mkdir(exist_ok=True)
    (images / "mine").mkdir()
    for stray in strays:
        stray.write_bytes(b"mine")
    (images / "link").symlink_to(tmp_path)
    folder = open_study(str(out), "toy-3x")
    folder.write_images("kept", 0, tuple(b"%d" % number for number in range(1001)))
    (images / "kept" / "00 best.png").write_bytes(b"mine")
    folder.keep_images_of({"kept"})
    assert [path.read_bytes() for path in folder.images("kept")] == [b"%d" % number for number in range(1001)]
    assert all(stray.read_bytes() == b"mine" for stray in strays)
    assert (images / "link").is_symlink()


@pytest.mark.parametrize(
    ("code", "after"), [(errno.ENOSPC, 0), (errno.ENOSPC, 9), (errno.EDQUOT, 20), (errno.EIO, 3)]
)
def test_a_full_disk_ends_a_search_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    """The disk takes some synced writes, then none; the write that fails has reached the disk in part."""
    left = after

    def sync(descriptor: int) -> None:
        nonlocal left
        if left == 0:
            raise OSError(code, os.strerror(code))
        left -= 1

    monkeypatch.setattr(folder_module.os, "fsync", sync)
    with pytest.raises(UserError, match=rf"cannot be .*{os.strerror(code)}.*--resume"):
        search(toy_settings(tmp_path, trials=4), executor=Counting())
    left = 10**9
    scores = tmp_path / "toy-3x" / "scores.jsonl"
    lines = scores.read_bytes().split(b"\n") if scores.exists() else [b""]
    assert lines[-1] == b""
    assert all(parse_line(line) is not None for line in lines[:-1])
    resumed, whole = Counting(), Counting()
    result = search(toy_settings(tmp_path, trials=4), executor=resumed, resume=True)
    assert comparable(result) == comparable(search(toy_settings(tmp_path / "whole", trials=4), executor=whole))
    assert len(resumed.ran) == len(whole.ran) - (len(lines) - 1)


def test_an_output_folder_that_is_removed_is_one_line(tmp_path: Path) -> None:
    class Removing(Counting):
        def next(self) -> Any:
            found = super().next()
            if len(self.ran) == 3:
                shutil.rmtree(tmp_path / "runs")
            return found

    with pytest.raises(UserError, match=r"toy-3x.* cannot be (written|used)"):
        search(toy_settings(tmp_path / "runs"), executor=Removing())


def test_a_locked_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    url = f"sqlite:///{path}?timeout=0.1"
    search(toy_settings(tmp_path, trials=1, storage=url), executor=Counting())
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(UserError, match=r"database is locked"):
            search(toy_settings(tmp_path, trials=3, storage=url), executor=Counting(), resume=True)
    finally:
        holder.close()
    search(toy_settings(tmp_path, trials=3, storage=url), executor=Counting(), resume=True)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"file system of folder .*cannot lock files .*--out"):
        search(toy_settings(tmp_path), executor=Counting())
