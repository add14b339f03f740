"""Studies that released versions have left: they open, report and export, and a resume works or names what to do.

A folder of `tests/data/studies` is named after the version that wrote it. Its images are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import list_studies, open_study, search
from studies.report.files import write_report
from tests.cli.conftest import Outcome
from tests.cli.conftest import run as run  # a fixture
from tests.studies.toy import Counting
from tuner import presets
from tuner.errors import UserError

GOLDEN = Path(__file__).parent.parent / "data" / "studies"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture(params=VERSIONS)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / request.param, tmp_path / request.param)
    return tmp_path / str(request.param)


@pytest.mark.parametrize("suffix", [".html", ".md", ".csv", ".json", ".svg"])
def test_a_study_of_an_earlier_version_is_reported(out: Path, suffix: str) -> None:
    (study,) = list_studies(str(out))
    assert study.state == "finished"
    assert write_report(study, out / f"report{suffix}").stat().st_size > 0


def test_its_pick_is_exported(out: Path, run: Callable[..., Outcome]) -> None:
    exported = run("export", "golden", "--out", str(out), "-o", str(out / "pick.yaml"))
    assert exported.code == 0, exported.err
    assert presets.load(str(out / "pick.yaml")).schedule == open_study(str(out), "golden").result().pick.schedule


def test_it_goes_on_or_is_refused_in_one_line_that_says_what_to_do(out: Path) -> None:
    study = open_study(str(out), "golden")
    settings = study.settings.model_copy(update={"out": str(out), "trials": 2})
    before = (study.path / "settings.json").read_bytes()
    with pytest.raises((UserError, KeyboardInterrupt)) as ended:
        search(settings, resume=True, executor=Counting(interrupt_after=0))
    if ended.type is UserError:
        assert "\n" not in str(ended.value)
        assert "another one with --study" in str(ended.value)
    assert (study.path / "settings.json").read_bytes() == before


def test_every_version_that_the_changelog_names_has_a_study() -> None:
    changelog = (GOLDEN.parent.parent.parent / "CHANGELOG.md").read_text()
    released = [line.strip("# []") for line in changelog.splitlines() if line.startswith("## [")]
    assert sorted(version for version in released if version != "Unreleased") == VERSIONS
    for version in VERSIONS:
        about = json.loads((GOLDEN / version / "golden" / "settings.json").read_text())
        assert about["identity"].get("tuner", "0.1.0") == version
