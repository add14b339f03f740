"""How the teacher's images are drawn: by all processes, each its share."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.studies.toy import ToyModel
from tuner.distill.swd import run
from tuner.distill.swd.data import METADATA, ImageFolder, generate

PROMPTS = [f"prompt {number}" for number in range(7)]


def drawn(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_draw_together_what_one_draws(processes: int, tmp_path: Path) -> None:
    generate(ToyModel(), PROMPTS, tmp_path / "one", seed=5, batch=1)
    for index in reversed(range(processes)):
        before = set(drawn(tmp_path / "many"))
        told: list[tuple[int, int]] = []
        share = index, processes
        generate(
            ToyModel(),
            PROMPTS,
            tmp_path / "many",
            5,
            1,
            lambda done, total, told=told: told.append((done, total)),
            share,
        )
        mine = len(PROMPTS[index::processes])
        assert len(set(drawn(tmp_path / "many")) - before) == mine
        assert told == [(done, mine) for done in range(1, mine + 1)]
        assert (tmp_path / "many" / METADATA).exists() is (index == 0)
    assert drawn(tmp_path / "many") == drawn(tmp_path / "one")
    assert len(ImageFolder(tmp_path / "many")) == len(PROMPTS)


def test_processes_wait_longer_for_each_other_than_torch_would() -> None:
    handler = run._accelerator(cpu=True).init_handler
    assert handler is not None
    assert handler.timeout == timedelta(days=1)
