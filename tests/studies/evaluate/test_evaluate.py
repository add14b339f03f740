from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studies.evaluate import EvalResult, EvalSettings, evaluate
from studies.evaluate.plan import make_eval_plan, noise_of
from studies.evaluate.report import markdown
from studies.judge.intervals import paired_score
from studies.work.task import ChunkResult, Failure, Task
from tests.studies.evaluate.conftest import PROMPTS, STAGED
from tests.studies.toy import TOY, Counting
from tuner.errors import UserError
from tuner.flops import price

Settings = Callable[..., EvalSettings]


def comparable(result: EvalResult) -> dict[str, Any]:
    """Everything but the clock."""
    data = result.model_dump()
    for row in data["rows"]:
        row.pop("seconds")
    return data


def test_rows_are_dearest_first_and_compared_with_baseline_plain_steps_and_the_next(toy_eval: Settings) -> None:
    executor = Counting()
    result, folder = evaluate(toy_eval(), executor=executor)
    assert executor.closed
    assert result.baseline == "plain:20"
    assert (result.prompts, result.seeds, result.prompt_set) == (8, 1, "prompts.txt (held out)")
    assert {task.prompts for task in executor.ran} == {tuple(PROMPTS[1::2][i : i + 3]) for i in (0, 3, 6)}
    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["plain:20", "plain:12", "plain:4", "staged", "plain:3"]
    for row in result.rows:
        assert row.tflops == price(row.schedule, TOY).tflops
        assert row.seconds is not None
        assert row.failure is None
        for name, score in row.baseline.items():
            assert score.mean == row.means[name]
            assert score.delta == pytest.approx(row.means[name] - rows["plain:20"].means[name])
            assert score.ci95[0] <= score.delta <= score.ci95[1]
    assert rows["plain:20"].baseline == rows["plain:20"].non_inferior == {}
    assert rows["plain:20"].dearer is None
    nearest = [row.dearer.name for row in result.rows if row.dearer is not None]
    assert nearest == ["plain:20", "plain:12", "plain:4", "staged"]
    rivals = {name: row.plain.name for name, row in rows.items() if row.plain is not None}
    assert rivals == {"staged": "plain:3"}  # 4 steps at a quarter of the cost and 2 at full
    plain = rows["staged"].plain
    assert plain is not None
    for name, score in plain.scores.items():
        assert score.delta == pytest.approx(rows["staged"].means[name] - rows["plain:3"].means[name])
    assert {path.name for path in folder.path.iterdir()} >= {"result.json", "result.md", "images.png"}
    assert EvalResult.model_validate_json((folder.path / "result.json").read_text()) == result
    assert (folder.path / "result.md").read_text(encoding="utf-8") == markdown(result)


def test_the_grid_has_a_row_per_prompt_and_a_column_per_schedule(toy_eval: Settings) -> None:
    result, folder = evaluate(toy_eval(), executor=Counting())
    sheet = np.asarray(Image.open(folder.path / "images.png"))
    tops, lefts = [], []
    for row in result.rows:
        for path in folder.images(row.schedule.content_hash):
            image = np.asarray(Image.open(path).resize((128, 128), Image.Resampling.NEAREST))
            corners = np.argwhere((sheet[:-127, :-127] == image[0, 0]).all(axis=-1))
            ((top, left),) = [(y, x) for y, x in corners if (sheet[y : y + 128, x : x + 128] == image).all()]
            tops.append(int(top))
            lefts.append(int(left))
    assert tops == sorted(set(tops)) * len(result.rows)
    assert lefts == sorted(lefts)
    assert (len(set(tops)), len(set(lefts))) == (3, len(result.rows))


@pytest.mark.parametrize("after", [1, 7])
def test_the_same_command_goes_on_where_it_stopped_to_the_same_bits(
    toy_eval: Settings, tmp_path: Path, after: int
) -> None:
    whole, _ = evaluate(toy_eval(out=str(tmp_path / "whole")), executor=Counting())
    first, second = Counting(interrupt_after=after), Counting()
    with pytest.raises(KeyboardInterrupt):
        evaluate(toy_eval(), executor=first)
    seen: list[tuple[int, int]] = []
    resumed, _ = evaluate(toy_eval(), executor=second, on_progress=lambda *at: seen.append(at))
    assert not {task.key for task in first.ran} & {task.key for task in second.ran}
    assert (seen[0], seen[-1]) == ((after, 15), (15, 15))
    assert comparable(resumed) == comparable(whole)


def test_another_preset_costs_only_its_own_images(toy_eval: Settings) -> None:
    evaluate(toy_eval(), executor=Counting())
    executor = Counting()
    result, _ = evaluate(toy_eval(presets=("plain:12", "plain:5"), baseline="plain:4"), executor=executor)
    assert {task.schedule for task in executor.ran} == {TOY.plain(5)}
    assert result.baseline == "plain:4"
    assert {row.name: round(row.speedup, 3) for row in result.rows} == {
        "plain:12": 0.333,
        "plain:5": 0.8,
        "plain:4": 1.0,
    }


def test_a_folder_holds_one_evaluation(toy_eval: Settings) -> None:
    evaluate(toy_eval(), executor=Counting())
    for change, name in [
        ({"seeds": 2}, "images"),
        ({"objectives": ("clip",)}, "objectives"),
        ({"size": (40, 32)}, "size"),
    ]:
        with pytest.raises(UserError, match=f"another `{name}` .* choose another one with -o"):
            evaluate(toy_eval(**change), executor=Counting())


def test_without_a_folder_it_is_named_after_what_is_evaluated(
    toy_eval: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [
        evaluate(toy_eval(out=None, presets=(preset,), limit=limit), executor=Counting())[1].path
        for preset, limit in [("plain:2", None), ("plain:3", None), ("plain:2", 4)]
    ]
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].name.startswith("eval-toy-")


def test_more_seeds_are_more_noise_of_the_same_prompts_and_intervals_cluster_them(toy_eval: Settings) -> None:
    executor = Counting()
    result, folder = evaluate(toy_eval(seeds=3, presets=("plain:4",)), executor=executor)
    assert result.seeds == 3
    assert result.prompts == 8
    lines = [json.loads(line) for line in folder.scores.read_text().splitlines()]
    scores: dict[str, dict[tuple[str, int], float]] = {}
    for line in lines:
        pairs = zip(line["prompts"], line["seeds"], strict=True)
        scores.setdefault(line["schedule"], {}).update(zip(pairs, line["scores"]["clip"], strict=True))
    mine, other = (scores[TOY.plain(steps).content_hash] for steps in (4, 20))
    assert len(mine) == len({seed for _, seed in mine}) == 24
    expected = paired_score(
        list(mine.values()), [other[pair] for pair in mine], prompts=[prompt for prompt, _ in mine]
    )
    assert result.rows[-1].baseline["clip"] == expected
    flat = paired_score(list(mine.values()), [other[pair] for pair in mine])
    assert expected.delta == pytest.approx(flat.delta)
    assert expected.ci95 != flat.ci95


def test_noise_of_a_prompt_stays_the_same_with_more_prompts_or_seeds() -> None:
    assert set(noise_of(PROMPTS[:4], 1, 0)) < set(noise_of(PROMPTS, 1, 0)) < set(noise_of(PROMPTS, 3, 0))
    assert not {seed for _, seed in noise_of(PROMPTS, 3, 0)} & {seed for _, seed in noise_of(PROMPTS, 3, 1)}


class Spoiled(Counting):
    """Two images of every unit of work of one schedule are black."""

    def __init__(self, schedule_hash: str):
        super().__init__()
        self._spoiled = schedule_hash

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        task, outcome = super().next()
        if task.schedule.content_hash == self._spoiled:
            outcome = Failure("2 of 3 images are degenerate: 2 all black", degenerate={"all black": 2})
        return task, outcome


def test_degenerate_images_are_counted_over_all_prompts_and_never_averaged(toy_eval: Settings) -> None:
    result, folder = evaluate(toy_eval(), executor=Spoiled(STAGED.content_hash))
    rows = {row.name: row for row in result.rows}
    assert rows["staged"].degenerate == {"all black": 6}
    assert rows["staged"].failure == "6 of 8 images are degenerate: 6 all black"
    assert rows["staged"].means == rows["staged"].baseline == {}
    assert rows["plain:3"].dearer is not None
    assert rows["plain:3"].dearer.name == "plain:4"
    assert "- staged: 6 of 8 images are degenerate" in (folder.path / "result.md").read_text(encoding="utf-8")
    again, _ = evaluate(toy_eval(), executor=Counting())
    assert comparable(again) == comparable(result)


def test_a_failing_baseline_ends_the_evaluation(toy_eval: Settings) -> None:
    failing = {TOY.plain(20).content_hash: "out of memory"}
    with pytest.raises(RuntimeError, match=r"the baseline failed.*out of memory"):
        evaluate(toy_eval(), executor=Counting(failing=failing))


def test_all_prompts_are_scored_only_if_asked_for(toy_eval: Settings) -> None:
    assert make_eval_plan(toy_eval()).prompts == PROMPTS[1::2]
    assert sorted(make_eval_plan(toy_eval(all_prompts=True)).prompts) == sorted(PROMPTS)
    assert make_eval_plan(toy_eval(limit=3)).prompts == PROMPTS[1:7:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "`seeds` must be at least 1"),
        ({"seeds": 101}, "`seeds` must be at most 100"),
        ({"limit": 1}, "`limit` must be at least 2"),
        ({"workers": -1}, "`workers` must be at least 0"),
        ({"presets": ("plain:",)}, "names no number of plain steps; write plain:12"),
        ({"presets": ("plain:0",)}, "'plain:0' names no number"),
        ({"presets": ("nothing",)}, "Unknown preset 'nothing'"),
        ({"baseline": "plain:x"}, "'plain:x' names no number"),
        ({"objectives": ()}, "at least one objective"),
        ({"margin": "klip=1%"}, "Did you mean 'clip'"),
        ({"size": (33, 32)}, "33x32 does not fit"),
        ({"prompts": "gone.csv"}, "'gone.csv' does not exist"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(
    toy_eval: Settings, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(toy_eval(**change), executor=Counting())
    assert not (tmp_path / "eval").exists()


def test_presets_for_several_sizes_and_of_one_name_are_refused(
    toy_eval: Settings, staged: str, tmp_path: Path
) -> None:
    text = Path(staged).read_text()
    (tmp_path / "large.yaml").write_text(text.replace("height: 32", "height: 64"))
    with pytest.raises(UserError, match=r"for several sizes \(staged is for 32x32.*--size"):
        make_eval_plan(toy_eval(presets=(staged, str(tmp_path / "large.yaml"))))
    (tmp_path / "other.yaml").write_text(text.replace("0.3", "0.2"))
    with pytest.raises(UserError, match="Two different presets are named 'staged'"):
        make_eval_plan(toy_eval(presets=(staged, str(tmp_path / "other.yaml"))))
