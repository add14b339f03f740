"""A unit of work of a video model is one video, and a study that dies goes on with the video that it died in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import studies.plan.chunks
import studies.plan.plan
from studies import SearchSettings, search
from studies.plan.chunks import default_chunk
from studies.work.evaluator import Evaluator
from studies.workers.executors import LocalExecutor
from tests.small_pipelines import small_pipeline
from tests.studies.test_search import comparable
from tuner.models import available, blueprint, wrap

VIDEOS = [name for name in available() if blueprint(name).fps is not None]
FRAMES, SIZE = 5, (32, 32)


@pytest.mark.parametrize("name", VIDEOS)
def test_a_unit_of_a_video_model_is_one_video(name: str) -> None:
    known = blueprint(name)
    assert default_chunk(known, known.size) == 1
    assert default_chunk(known.with_frames(1), (256, 256)) == 8


class Model:
    """A small Wan that a signal kills in the middle of a video, after so many calls of its network."""

    def __init__(self) -> None:
        pipe = small_pipeline("WanPipeline").build()
        self.known = replace(
            wrap(pipe).blueprint.with_frames(FRAMES),
            height=SIZE[0],
            width=SIZE[1],
            steps=3,
            name="wan",
            source="wan",
        )
        self.loaded = self.known.wrap(pipe)
        self.calls_left: int | None = None
        self._velocity = self.loaded.velocity
        self.loaded.velocity = self._called  # type: ignore[method-assign]

    def _called(self, *arguments: Any) -> Any:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise KeyboardInterrupt
        return self._velocity(*arguments)


class Recording(LocalExecutor):
    """Says which videos were finished."""

    def __init__(self, load: Callable[[], Evaluator]):
        super().__init__(load)
        self.finished: list[Any] = []

    def next(self) -> Any:
        task, outcome = super().next()
        self.finished.append(task.key)
        return task, outcome


def test_a_killed_study_draws_one_video_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.studies.toy import Brightness

    model = Model()
    monkeypatch.setattr(studies.plan.plan, "blueprint", lambda name: model.known)
    monkeypatch.setattr(studies.plan.chunks, "_PIXELS", FRAMES * SIZE[0] * SIZE[1])

    def run(name: str, resume: bool = False) -> tuple[Any, Recording]:
        executor = Recording(lambda: Evaluator(model.loaded, [Brightness()]))
        settings = SearchSettings(
            model="wan",
            budget="67%",
            objectives=("clip",),
            space="plain",
            trials=1,
            search_prompts=2,
            held_out_prompts=2,
            out=str(tmp_path / name),
            study="videos",
            reuse=False,
        )
        try:
            return search(settings, executor=executor, resume=resume), executor
        except KeyboardInterrupt:
            return None, executor

    unharmed, whole = run("unharmed")
    model.calls_left = 4  # one video of three calls, and a third of the next
    _, killed = run("killed")
    model.calls_left = None
    resumed, rest = run("killed", resume=True)
    assert comparable(resumed) == comparable(unharmed)
    assert len(killed.finished) == 1
    assert sorted(map(str, killed.finished + rest.finished)) == sorted(map(str, whole.finished))
    lines = (tmp_path / "killed" / "videos" / "scores.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["prompts"]) for line in lines} == {1}
    assert len(lines) == len(whole.finished)
