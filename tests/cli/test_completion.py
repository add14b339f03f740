from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tuner.cli.main import app


def completed(*words: str) -> list[str]:
    """Returns what the shell would offer for the last word."""
    *before, typed = words
    found = ShellComplete(app, {}, "tuner", "_TUNER_COMPLETE").get_completions(before, typed)
    return [item.value for item in found if item.type == "plain"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], ["presets"]),
        (["flops", "--model", "flux-"], ["flux-schnell"]),
        (["search", "--model", "sd3.5-"], ["sd3.5-large", "sd3.5-medium"]),
        (["models", "flux", "tiny-"], ["tiny-cfg"]),
        (["flops", "--preset", "bottleneck-hunyuan-2"], ["bottleneck-hunyuan-2.5x", "bottleneck-hunyuan-2x"]),
        (["presets", "ays"], ["ays-sdxl-10"]),
        (["sample", "ays"], ["ays-sdxl-10"]),
        (["prompts", "g"], ["general"]),
        (["schedule", "oss", "--model", "wan2.2"], ["wan2.2"]),
    ],
)
def test_names_are_completed(words: list[str], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_a_word_that_is_no_name_completes_to_files(tmp_path: Path) -> None:
    (item,) = ShellComplete(app, {}, "tuner", "_TUNER_COMPLETE").get_completions(["sample"], "./mine")
    assert (item.type, item.value) == ("file", "./mine")


def test_studies_are_completed_from_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("runs/tiny-3x", "runs/tiny-4x", "elsewhere/mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "settings.json").write_text("{}")
    (tmp_path / "runs" / "tiny-notes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert completed("report", "tiny") == ["tiny-3x", "tiny-4x"]
    assert completed("report", "--out", "elsewhere", "") == ["mine"]
    assert completed("export", "tiny-4") == ["tiny-4x"]
    assert "swd-tiny-4" in completed("export", "swd-")
