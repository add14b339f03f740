from __future__ import annotations

from typing import Any

import pytest

from studies.evaluate.ablations import WHOLE, Row
from studies.evaluate.oss_ablations import CALIBRATED, PER_SAMPLE, OssAblations
from tests.studies.toy import TOY, load_toy
from tuner.flops import price

SIZE = (32, 32)
PROMPTS = ["a", "bb", "ccc"]


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, int, int | None]]:
    return []


@pytest.fixture(scope="module")
def rows(seen: list[tuple[str, int, int | None]]) -> dict[str, Row]:
    def on_progress(*at: Any) -> None:
        seen.append(at)

    ablations = OssAblations(load_toy()._model, ["d", "ee"], PROMPTS, 5, SIZE, 2, 5, on_progress)
    return {row.name: row for row in ablations.rows()}


def test_every_choice_is_made_otherwise_once(rows: dict[str, Row]) -> None:
    assert list(rows) == [
        WHOLE,
        "plain steps",
        "latents compared",
        "teacher of 5x the steps",
        "teacher of 25x the steps",
        "least mean log cost",
        "median of levels",
        "mean of levels",
        CALIBRATED,
        "plain dpmpp-2m",
        "found for dpmpp-2m",
        PER_SAMPLE,
    ]
    assert {row.tflops for row in rows.values()} == {price(TOY.plain(5), TOY, SIZE).tflops}


def test_rows_compare_with_the_whole_method(rows: dict[str, Row]) -> None:
    score = rows[WHOLE].scores["psnr"]
    assert (score.delta, score.ci95) == (0, (0, 0))
    assert all(
        row.scores["psnr"].delta == pytest.approx(row.scores["psnr"].mean - score.mean) for row in rows.values()
    )
    assert rows["plain steps"].scores["psnr"].delta < 0
    assert rows["plain dpmpp-2m"].scores["psnr"].mean != rows["plain steps"].scores["psnr"].mean
    assert rows[CALIBRATED].scores["psnr"].delta != 0


def test_the_papers_differences_are_those_within_its_own_tables(rows: dict[str, Row]) -> None:
    assert rows["latents compared"].paper == {"psnr": (18.54, -3.91)}
    assert rows[PER_SAMPLE].paper == {"psnr": (28.07, 1.6)}
    assert rows["plain steps"].paper == {"psnr": (26.12, -0.35)}
    assert rows[CALIBRATED].paper == {}


def test_progress_names_every_search_and_every_drawing(
    rows: dict[str, Row], seen: list[tuple[str, int, int | None]]
) -> None:
    names = [name for name, _, _ in seen]
    assert {"latents compared", "images: reference", f"images: {WHOLE}", PER_SAMPLE} <= set(names)
    assert [done for name, done, _ in seen if name == "images: reference"] == [2, 3]
