"""Apart from the other training tests, because worker processes import this file and should start fast."""

from __future__ import annotations

from pathlib import Path

import torch

from tuner.tiny.training.run import Settings, Worker, launch


def _count(worker: Worker) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(worker.rank))
    worker.average_gradients([parameter])
    (worker.settings.work / f"rank{worker.rank}").write_text(str(parameter.grad.tolist()))
    (worker.settings.work / f"shared{worker.rank}").write_text(str(worker.shared(worker.rank + 5)))


def test_workers_average_gradients_and_agree_with_the_first(tmp_path: Path) -> None:
    launch("count", Settings(tmp_path, 1, None, 2, 0), _count)

    assert {(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)} == {"[0.5, 0.5, 0.5]"}
    assert {(tmp_path / f"shared{rank}").read_text() for rank in (0, 1)} == {"5.0"}
