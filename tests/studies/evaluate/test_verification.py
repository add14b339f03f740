from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import studies.evaluate.verification
import studies.plan.plan
from studies import search
from studies.evaluate import EvalSettings, Verification, verify
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import presets
from tuner.errors import UserError
from tuner.models import ModelOptions
from tuner.presets import Preset, Score


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """The pick of a search on the general prompts, cut to 6 and 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        result = search(toy_settings(tmp_path_factory.mktemp("study"), trials=2), executor=Counting())
    return presets.load(result.preset)


Verify = Callable[..., Verification]


@pytest.fixture
def verified(tmp_path: Path) -> Verify:
    def run(preset: Preset, **changes: Any) -> Verification:
        path = presets.save(preset, tmp_path / "preset.yaml")
        settings = EvalSettings(model="", presets=(), out=str(tmp_path / "verify"), **changes)
        return verify(path, settings, executor=Counting())

    return run


def moved(preset: Preset, by: float) -> Preset:
    """Records another difference for the held-out prompts, by a fraction of half its interval."""
    scores = {
        name: score.model_copy(update={"delta": score.delta + by * (score.ci95[1] - score.delta)})
        for name, score in preset.scores.items()
    }
    return preset.model_copy(update={"scores": scores})


def older(preset: Preset) -> Preset:
    assert preset.provenance is not None
    versions = preset.provenance.versions | {"torch": "1.0"}
    return preset.model_copy(update={"provenance": preset.provenance.model_copy(update={"versions": versions})})


def test_a_preset_from_a_search_verifies_exactly(found: Preset, verified: Verify) -> None:
    outcome = verified(found)
    assert outcome.exact_expected
    assert outcome.holds
    assert [(check.prompts, check.objective, check.verdict) for check in outcome.checks] == [
        ("held-out", "clip", "exact"),
        ("held-out", "image_reward", "exact"),
        ("search", "clip", "exact"),
        ("search", "image_reward", "exact"),
    ]
    assert all(check.recorded == check.measured for check in outcome.checks)


def test_large_images_are_decoded_in_tiles_as_the_search_did_unless_the_user_says_no(
    found: Preset, verified: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiles(known: Any, options: ModelOptions, size: Any) -> ModelOptions:
        return options if options.tiling is not None else options.model_copy(update={"tiling": True})

    monkeypatch.setattr(studies.evaluate.verification, "with_tiling", tiles)
    verified(found)
    about = json.loads((tmp_path / "verify" / "evaluation.json").read_text())
    assert about["options"] == {"tiling": True}
    with pytest.raises(UserError, match="another `options`"):
        verified(found, options=ModelOptions(tiling=False))


def test_the_precision_is_that_of_the_search(found: Preset, verified: Verify, tmp_path: Path) -> None:
    assert found.provenance is not None
    other = found.provenance.model_copy(update={"dtype": "bfloat16"})
    verified(found.model_copy(update={"provenance": other}))
    assert json.loads((tmp_path / "verify" / "evaluation.json").read_text())["options"] == {"dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("by", "old_versions", "verdict", "holds"),
    [
        (0.0, True, "exact", True),
        (0.5, True, "within the interval", True),
        (0.5, False, "within the interval", False),
        (20.0, True, "different", False),
        (20.0, False, "different", False),
    ],
)
def test_scores_that_moved_hold_within_their_interval_where_bits_may_differ(
    found: Preset, verified: Verify, by: float, old_versions: bool, verdict: str, holds: bool
) -> None:
    preset = moved(found, by)
    outcome = verified(older(preset) if old_versions else preset)
    assert {check.verdict for check in outcome.checks if check.prompts == "held-out"} == {verdict}
    assert outcome.holds is holds
    assert outcome.exact_expected is not old_versions
    assert list(outcome.other_versions) == ["torch"] * old_versions


def test_a_mean_that_is_not_what_the_difference_says_does_not_hold(found: Preset, verified: Verify) -> None:
    score = found.scores["clip"]
    width = score.ci95[1] - score.ci95[0]
    raised = Score(mean=score.mean + 2 * width, delta=score.delta, ci95=score.ci95)
    outcome = verified(older(found.model_copy(update={"scores": {"clip": raised}})))
    assert outcome.checks[0].verdict == "different"


def test_prompts_that_cannot_be_found_again_are_asked_for(found: Preset, verified: Verify, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl")
    with pytest.raises(UserError, match=r"10 prompts with the hash .*'other\.txt'.*--prompts"):
        verified(found, prompts=str(tmp_path / "other.txt"))


def test_a_preset_without_provenance_has_nothing_to_verify(found: Preset, verified: Verify) -> None:
    for bare in (
        found.model_copy(update={"provenance": None}),
        found.model_copy(update={"scores": {}, "search_scores": {}}),
    ):
        with pytest.raises(UserError, match="nothing to verify; `tuner export`"):
            verified(bare)
