from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from objectives.psnr import CEILING
from studies.evaluate import Verification
from studies.evaluate.verification import Check, Verdict
from studies.plan.prompts import load_prompts
from studies.work.task import Task
from studies.workers import ray_executor
from studies.workers.deaths import TaskLimit
from studies.workers.executors import LocalExecutor
from tests.cli.conftest import Outcome
from tuner import generate
from tuner.models import blueprint
from tuner.presets import Score

Run = Callable[..., Outcome]
ARGUMENTS = ("plain:4", "plain:2", "--baseline", "plain:4", "--model", "tiny", "--limit", "4", "--workers", "0")


def without_clock(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    for row in data["rows"]:
        row.pop("seconds")
    return data


def test_the_embedded_model_is_evaluated_and_reproduces_itself_bit_for_bit(run: Run, tmp_path: Path) -> None:
    first = run("eval", *ARGUMENTS, "-o", str(tmp_path / "first"), "--json")
    again = run("eval", *ARGUMENTS, "-o", str(tmp_path / "again"), "--json")
    assert first.code == again.code == 0
    assert without_clock(first.out) == without_clock(again.out)
    assert first.err.startswith("units of work: 0/2\n")
    assert first.err.endswith("units of work: 2/2\n")
    rows = json.loads(first.out)["rows"]
    assert [(row["name"], row["nfe"]) for row in rows] == [("plain:4", 4), ("plain:2", 2)]
    images = [tmp_path / folder / "images.png" for folder in ("first", "again")]
    assert images[0].read_bytes() == images[1].read_bytes()

    shown = run("eval", *ARGUMENTS, "-o", str(tmp_path / "first"))
    assert f"report: {tmp_path / 'first'}" in shown.out
    assert shown.err == "units of work: 2/2\n"  # nothing was run again
    for text in ("clip, tiny: 4 prompts of tiny (held out)", "image_reward", "plain:2", "at most"):
        assert text in shown.out


def test_a_preset_with_a_lora_of_its_own_is_evaluated_beside_others(run: Run, tmp_path: Path) -> None:
    arguments = ("--model", "tiny", "--limit", "2", "--workers", "0", "--objectives", "image_reward,psnr")
    mixed = run(
        "eval", "swd-tiny-4", "plain:4", "--baseline", "plain:4", *arguments, "-o", str(tmp_path / "mixed")
    )
    assert mixed.code == 0
    shown = run("eval", "swd-tiny-4", "--baseline", "plain:4", *arguments, "-o", str(tmp_path / "mixed"))
    assert shown.err == "units of work: 3/3\n"  # nothing was run again
    result = json.loads((tmp_path / "mixed" / "result.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["plain:4", "plain:3", "swd-tiny-4"]
    assert rows["swd-tiny-4"]["plain"]["name"] == "plain:3"
    assert [rows[name]["model_options"] is None for name in rows] == [True, True, False]
    assert rows["plain:4"]["means"]["psnr"] == CEILING
    assert rows["swd-tiny-4"]["means"]["psnr"] < CEILING

    drawn = tmp_path / "mixed" / "images" / rows["swd-tiny-4"]["key"] / "001.png"
    prompt = load_prompts(None, blueprint("tiny")).held_out[1]
    pipe = blueprint("tiny").load("cpu").pipe  # type: ignore[attr-defined]
    same = generate(pipe, prompt, "swd-tiny-4", seed=1).images[0]
    assert Image.open(drawn).tobytes() == same.tobytes()

    other = run("eval", "plain:3", "--baseline", "plain:4", *arguments, "-o", str(tmp_path / "plain"), "--json")
    again = {row["name"]: row for row in json.loads(other.out)["rows"]}
    assert again["plain:3"]["means"] == rows["plain:3"]["means"]  # the LoRA was taken off


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to evaluate, such as `tuner eval plain:12 --model tiny`"),
        (("plain:4",), "Say what to evaluate"),
        (("--model", "tiny"), "Say what to evaluate"),
        (("plain:4", "--model", "tinny"), "Did you mean 'tiny'?"),
        (
            ("plain:4", "--model", "tiny", "--prompts", "fox.txt", "--objectives", "attributes"),
            "cannot judge a prompt",
        ),
        (("--verify", "x.yaml", "plain:4", "--seeds", "2"), "leave PRESET, --seeds out"),
        (("--verify", "x.yaml", "--guidance", "2", "--no-tiling"), "leave --guidance out"),
        (("--verify", "x.yaml"), "Preset file 'x.yaml' does not exist"),
        (("--verify", "x.yaml", "--no-tiling", "--transformer", "a.gguf"), "Preset file 'x.yaml' does not exist"),
        (("--verify", "bottleneck-flux-3x"), "nothing to verify"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fox.txt").write_text("a red fox\na blue hen\na pale cat\na dark oak")
    outcome = run("eval", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("exact", "verdict", "code", "said"),
    [
        (True, "exact", 0, "the recorded scores hold; the versions are those of the provenance"),
        (True, "within the interval", 1, "the recorded scores do not hold; the versions are those"),
        (False, "within the interval", 0, "the recorded scores hold; other versions or a GPU"),
        (False, "different", 1, "the recorded scores do not hold; other versions or a GPU"),
    ],
)
def test_verifying_ends_with_1_where_scores_do_not_hold(
    run: Run, monkeypatch: pytest.MonkeyPatch, exact: bool, verdict: Verdict, code: int, said: str
) -> None:
    score = Score(mean=0.5, delta=-0.1, ci95=(-0.2, 0.0))
    check = Check(objective="clip", prompts="held-out", recorded=score, measured=score, verdict=verdict)
    other = {} if exact else {"torch": "1.0, now 2.0"}
    found = Verification(preset="mine", exact_expected=exact, other_versions=other, checks=[check])
    monkeypatch.setattr("studies.evaluate.verify", lambda *_, **__: found)
    shown, as_json = run("eval", "--verify", "x.yaml"), run("eval", "--verify", "x.yaml", "--json")
    assert shown.code == as_json.code == code
    assert said in shown.out
    assert verdict in shown.out
    assert ("torch was 1.0, now 2.0" in shown.out) is not exact
    assert json.loads(as_json.out)["holds"] is (code == 0)


ANY_TASK = Task(blueprint("tiny").plain(1), ("a fox",), (0,), (64, 64))


def test_the_limit_of_a_unit_of_work_reaches_the_workers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def executor(load: Any, workers: int, gpus: float, address: str, limit: TaskLimit, cargo: Any) -> Any:
        limits.append(limit.seconds(ANY_TASK))
        return LocalExecutor(load)

    monkeypatch.setattr(ray_executor, "RayExecutor", executor)
    arguments = ("eval", "plain:1", "--baseline", "plain:2", "--model", "tiny", "--limit", "2", "--workers", "1")
    assert run(*arguments, "--task-timeout", "7s", "-o", str(tmp_path / "new")).code == 0
    assert limits == [7.0]
    refused = run(*arguments, "--task-timeout", "never", "-o", str(tmp_path / "other"))
    assert refused.code == 2
    assert "--task-timeout" in refused.err
