from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import imageio.v3
import pytest

from tests.cli.conftest import Outcome
from tests.small_pipelines import small_pipeline
from tuner import presets
from tuner.schedule import Schedule, Stage

SCHEDULE = Schedule(stages=(Stage(scale=0.5, steps=2), Stage(steps=2, strength=0.5)))


def test_sample_writes_an_mp4(run: Callable[..., Outcome], tmp_path: Path) -> None:
    small_pipeline("WanPipeline").build().save_pretrained(tmp_path / "pipe")
    preset = presets.Preset(
        name="small", model=str(tmp_path / "pipe"), source="test", height=64, width=96, schedule=SCHEDULE
    )
    presets.save(preset, tmp_path / "small.yaml")
    arguments = ["sample", str(tmp_path / "small.yaml"), "a red fox", "--frames", "5", "--device", "cpu"]
    outcome = run(*arguments, "--fps", "4", "-o", str(tmp_path / "fox.mp4"))
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "fox.mp4"))
    assert imageio.v3.imread(tmp_path / "fox.mp4").shape == (5, 64, 96, 3)
    assert imageio.v3.immeta(tmp_path / "fox.mp4")["fps"] == pytest.approx(4)
    refused = run(*arguments, "-o", str(tmp_path / "fox.png"))
    assert refused.code == 2
    assert "end it in .mp4" in refused.err


def test_sample_writes_an_mp4_with_sound(run: Callable[..., Outcome], tmp_path: Path) -> None:
    small_pipeline("LTX2Pipeline").build().save_pretrained(tmp_path / "pipe")
    preset = presets.Preset(
        name="small", model=str(tmp_path / "pipe"), source="test", height=64, width=96, schedule=SCHEDULE
    )
    presets.save(preset, tmp_path / "small.yaml")
    arguments = ["sample", str(tmp_path / "small.yaml"), "a red fox", "--frames", "9", "--device", "cpu"]
    outcome = run(*arguments, "-o", str(tmp_path / "fox.mp4"))
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "fox.mp4"))
    with av.open(str(tmp_path / "fox.mp4")) as written:
        (video,), (audio,) = written.streams.video, written.streams.audio
        assert (video.frames, video.width, video.height, video.average_rate) == (9, 96, 64, 24)
        assert audio.rate == 16000
        assert float(audio.duration * audio.time_base) == pytest.approx(9 / 24, abs=0.1)
    refused = run(*arguments, "--fps", "12", "-o", str(tmp_path / "fox.mp4"))
    assert refused.code == 2
    assert "draws sound for 24 frames per second" in refused.err
