from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from studies.plan.settings import SearchSettings
from studies.records.results import Checked, Loss, StudyResult
from studies.records.study_folder import StudyFolder
from studies.report.ending import next_lines, unseen_cells, verdict_text, verdicts, warnings
from studies.report.figures import contact_sheet, front_figure
from studies.report.files import write_report
from studies.report.numbers import duration
from studies.report.shorthand import distinct_shorthands
from studies.report.staircase import staircase
from studies.report.tables import front_table, markdown, shorthand
from tests.studies.example import DIRECTIONS, study
from tests.studies.study_files import write_study
from tuner.errors import UserError
from tuner.models import ModelOptions
from tuner.presets import Score
from tuner.schedule import Schedule, Stage
from tuner.tables import View

GOLDEN = Path(__file__).parent / "golden_report.md"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return write_study(tmp_path / "flux-3x", study(), DIRECTIONS, ["a red fox", "a blue hen"])


def test_the_markdown_is_the_golden_file() -> None:
    assert markdown(study()) == GOLDEN.read_text(encoding="utf-8")


def test_the_terminal_table_has_a_row_for_every_member_of_the_front() -> None:
    result = study()
    text = io.StringIO()
    Console(file=text, width=200).print(front_table(result))
    for member in result.front:
        assert f"{member.speedup:.2f}x" in text.getvalue()
    assert text.getvalue().count("(pick)") == 1
    assert "plain:8" in text.getvalue()


def test_what_is_quoted_of_the_pick_is_what_it_scores_on_unseen_prompts() -> None:
    result = study()
    unseen = {"clip": Score(mean=30.0, delta=-0.25, ci95=(-0.5, 0.0))}
    result = result.model_copy(update={"pick": result.pick.model_copy(update={"held_out": unseen})})
    assert unseen_cells(result)[1] == [["clip", "30", "baseline", "1.00x", "-0.25 [-0.5, +0]"]]
    assert "Quote scores on unseen prompts" in " ".join(drawn(result).split())


def drawn(result: StudyResult, width: int = 200, **options: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(front_table(result, width, **options))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_cuts_nothing_and_leaves_out_the_least(width: int) -> None:
    text = drawn(study(), width)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width
    for member in study().front:
        assert f"{member.speedup:.2f}x" in text
    assert ("TFLOPs ┃" in text) is (width > 120)


def test_wide_shows_every_column_and_top_some_rows_around_the_pick() -> None:
    assert "TFLOPs" in drawn(study(), 200)
    few = drawn(study(), 200, view=View(top=3))
    assert "3 of 10 members" in few
    assert "(pick)" in few
    assert few.count("x ") < drawn(study(), 200).count("x ")


def test_a_member_that_measured_worse_than_another_is_marked() -> None:
    result = study()
    beaten = result.front[-1].model_copy(update={"trial": 99, "tflops": result.front[-1].tflops * 1.01})
    with_it = result.model_copy(update={"front": [*result.front, beaten], "directions": dict(DIRECTIONS)})
    text = drawn(with_it)
    assert "99 plain:16*" in text
    assert "* measured no better than a member" in text
    assert "measured no better than a member" not in drawn(result)


def test_a_comparison_with_the_baselines_images_shows_its_mean_alone() -> None:
    result = study().model_copy(update={"fidelity": ("clip",)})
    assert "clip difference" not in drawn(result)
    score = result.pick.scores["clip"]
    assert f"{score.mean:.4g}" in drawn(result)


def test_two_schedules_that_differ_do_not_look_equal() -> None:
    first = Stage(scale=0.5, steps=1)
    several = [
        Schedule(stages=(first, Stage(sigmas=(0.6, 0.0)))),
        Schedule(stages=(first, Stage(sigmas=(0.8, 0.0)))),
        Schedule(stages=(first, Stage(sigmas=(0.8, 0.0), resample="nearest"))),
        Schedule(stages=(Stage(steps=4, shift=3.0),)),
        Schedule(stages=(Stage(steps=4, shift=2.0),)),
        Schedule(stages=(Stage(steps=5),)),
    ]
    assert distinct_shorthands(several) == [
        "1@0.5 > 1@1 from 0.6",
        "1@0.5 > 1@1 from 0.8 bilinear",
        "1@0.5 > 1@1 from 0.8 nearest",
        "4@1 shift 3",
        "4@1 shift 2",
        "5@1",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (4.25, "4.2 s"), (61, "61 s"), (213, "4 min"), (5432, "91 min"), (9000, "2.5 h")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("changes", "options", "commands"),
    [
        (
            {"model": "tiny"},
            {},
            ["report STUDY -o report.html", 'sample PRESET "..." -o image.png', "export STUDY --format comfyui"],
        ),
        (
            {"model": "wan2.1-1.3b", "out": "my runs", "for_target": "sigmas"},
            {"transformer": "wan q8.gguf", "tiling": False, "compile": True, "guidance": 4.0},
            [
                "report STUDY --out 'my runs' -o report.html",
                "sample PRESET \"...\" --transformer 'wan q8.gguf' --compile --no-tiling -o video.mp4",
                "export STUDY --out 'my runs' --format sigmas",
            ],
        ),
    ],
)
def test_what_comes_next_draws_as_the_study_did(
    changes: dict[str, Any], options: dict[str, Any], commands: list[str]
) -> None:
    settings = SearchSettings(budget="3x", options=ModelOptions(**options), **changes)
    lines = next_lines(study(), settings)[1:4]
    named = [one.replace("STUDY", study().study).replace("PRESET", study().preset) for one in commands]
    assert lines == [f"  tuner {one}" for one in named]


def test_each_verdict_says_what_was_decided() -> None:
    def one(within: bool | None) -> Checked:
        loss = Loss(mean=0.12, low=0.05, high=0.19, margin="1 %", points=0.04, within=within)
        return Checked(label="pick", prompts=128, losses={"clip": loss})

    assert verdict_text(one(True)).startswith("as good as the baseline (within 1 % on every objective")
    assert verdict_text(one(False)).endswith("clip loses at least 0.05, margin 1 % = 0.04")
    assert verdict_text(one(None)).startswith("undecided after 128 unseen prompts: clip may lose up to 0.19")
    result = study().model_copy(update={"checks": [one(True)], "search_prompts": 8})
    assert verdicts(result)[0].startswith("pick (trial 11): as good")
    assert "as good as the baseline" in markdown(result)
    assert warnings(result)[0].startswith("warning: 8 search prompts are too few")


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_pictures_are_written_by_suffix(folder: StudyFolder, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = write_report(folder, tmp_path / "new folder" / f"front{suffix}")
    assert path.read_bytes().startswith(start)


def test_json_and_markdown_are_written_by_suffix(folder: StudyFolder, tmp_path: Path) -> None:
    result = study()
    text = write_report(folder, tmp_path / "front.json").read_text()
    assert StudyResult.model_validate_json(text) == result
    assert write_report(folder, str(tmp_path / "front.md")).read_text(encoding="utf-8") == markdown(result)


def test_the_csv_table_has_a_row_for_every_schedule(folder: StudyFolder, tmp_path: Path) -> None:
    result = study()
    with write_report(folder, tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == [one.trial for one in result.evaluated]
    for row, one in zip(rows, result.evaluated, strict=True):
        assert float(row["tflops"]) == one.tflops
        assert float(row["clip.delta"]) == one.scores["clip"].delta
        assert (float(row["clip.ci95.low"]), float(row["clip.ci95.high"])) == one.scores["clip"].ci95
    assert [int(row["trial"]) for row in rows if row["pick"] == "True"] == [result.pick.trial]
    assert {int(row["trial"]) for row in rows if row["front"] == "True"} == {one.trial for one in result.front}


@pytest.mark.parametrize("name", ["front.xlsx", "front", ".png.", "front.jpg"])
def test_other_suffixes_are_refused_before_anything_is_written(
    folder: StudyFolder, tmp_path: Path, name: str
) -> None:
    known = r"end its name in one of \.html, \.png, \.svg, \.pdf, \.md, \.csv, \.json\."
    with pytest.raises(UserError, match=known):
        write_report(folder, tmp_path / "sub" / name)
    assert not (tmp_path / "sub").exists()


def test_a_place_that_cannot_be_written_is_one_line(folder: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(folder, tmp_path / "file" / "front.md")


def test_the_picture_shows_every_kind_of_candidate_in_every_panel() -> None:
    figure = front_figure(study(), DIRECTIONS)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["clip", "image_reward"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "baseline",
        "trials",
        "plain steps",
        "published presets",
        "Pareto front",
        "on the front for another score",
        "pick",
    }
    for axes in panels:
        assert {"1", "2"} <= {text.get_text() for text in axes.texts}
        low, high = axes.get_ylim()
        assert low < 0 < high
    listed = [text.get_text() for text in figure.legends[1].get_texts()]
    assert listed == ["bottleneck-flux-3x", "bottleneck-flux-2x"]  # the cheaper one first


def test_a_study_of_one_trial_and_no_references_can_be_drawn(tmp_path: Path) -> None:
    result = study()
    lone = result.model_copy(update={"front": [result.front[0]], "references": [], "evaluated": [result.front[0]]})
    front_figure(lone, DIRECTIONS).savefig(tmp_path / "front.png")
    assert "References" not in markdown(lone)


def test_a_contact_sheet_has_a_row_per_schedule_and_a_column_per_prompt() -> None:
    rows = [("baseline", ["red", "lime"]), ("trial 3\n3.1x", ["blue", "cyan"]), ("short", ["yellow"])]
    sheet = contact_sheet([(label, [Image.new("RGB", (64, 64), c) for c in colors]) for label, colors in rows])
    right = [sheet.getpixel((sheet.width - 64, y)) for y in (64, 200)]
    left = [sheet.getpixel((sheet.width - 200, y)) for y in (64, 200, 330)]
    assert right == [(0, 255, 0), (0, 255, 255)]
    assert left == [(255, 0, 0), (0, 0, 255), (255, 255, 0)]
    assert sheet.getpixel((sheet.width - 64, 330)) == (255, 255, 255)


@pytest.mark.parametrize(("size", "cell"), [(64, 128), (100, 100), (1024, 256)])
def test_small_images_are_enlarged_by_whole_factors_and_large_ones_reduced(size: int, cell: int) -> None:
    sheet = contact_sheet([("row", [Image.new("RGB", (size, size), "red")])])
    red = [x for x in range(sheet.width) if sheet.getpixel((x, sheet.height // 2)) == (255, 0, 0)]
    assert len(red) == cell


def test_an_empty_contact_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([("row", [])])


def test_the_shorthand_of_a_schedule_says_what_its_stages_do_otherwise() -> None:
    first = Stage(scale=0.5, steps=4, solver="ab2", reuse=(2,))
    last = Stage(sigmas=(0.8, 0.4, 0.0), guidance=2.0, guide=(0.9, 0.5))
    assert shorthand(Schedule(stages=(first, last))) == "4@0.5 ab2 -1 > 2@1 g2 in [0.5, 0.9]"
    assert shorthand(Schedule(stages=(Stage(steps=4),))) == "4@1"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_the_staircase_is_what_no_other_point_beats_on_two_axes(losses: list[tuple[int, int]]) -> None:
    steps = [losses[index] for index in staircase(losses)]
    beaten = {a for a in losses for b in losses if a != b and b[0] <= a[0] and b[1] <= a[1]}
    assert steps == sorted(set(losses) - beaten)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_line_of_a_panel_never_turns_back_and_joins_what_is_filled(direction: str) -> None:
    result = study()
    for axes in front_figure(result, dict.fromkeys(DIRECTIONS, direction)).axes:
        (line,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
        x, y = line.get_data()
        sign = 1 if direction == "maximize" else -1
        assert list(x) == sorted(x)
        assert all(after > before for before, after in itertools.pairwise(sign * value for value in y))
        marks = {box.get_label(): box.lines[0] for box in axes.containers}
        assert set(zip(*marks["Pareto front"].get_data(), strict=True)) == set(zip(x, y, strict=True))
        if len(x) < len(result.front):
            hidden = marks["on the front for another score"]
            assert hidden.get_markerfacecolor() == "white"
            assert len(x) + len(hidden.get_xdata()) == len(result.front)
