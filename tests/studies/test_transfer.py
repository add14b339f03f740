"""Learning from earlier studies: what is handed on, how it is weighed, and that a resumed study repeats it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import studies.propose.proposer
from studies import SearchSettings, StudyFolder, open_study, search
from studies.plan.knowledge import Knowledge, read_knowledge
from studies.plan.plan import Plan, make_plan
from studies.propose.features import features, relative
from studies.propose.improvement import Array
from studies.propose.proposer import propose
from studies.propose.surrogate import Surrogate
from studies.propose.transfer import agreement, best_taught, lessons_of
from studies.propose.trial import Trial
from studies.records.lessons import LEARNT, knowledge_of, teachers
from tests.studies.toy import Counting, toy_settings
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import blueprint
from tuner.schedule import Schedule, Stage

RNG = np.random.default_rng(0)
KNOWN = np.column_stack([RNG.uniform(0, 6, (30, 2)), np.zeros((30, 12))])
VALUES = np.sin(KNOWN[:, 0]) + 0.3 * KNOWN[:, 1]


def finished_study(out: Path) -> StudyFolder:
    """Runs a study of the toy, whose model name only the tests know."""
    import studies.plan.plan
    from tests.studies.toy import find_blueprint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        search(toy_settings(out, study="first"), executor=Counting())
    return open_study(str(out), "first")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return finished_study(tmp_path_factory.mktemp("earlier"))


@pytest.fixture
def known(earlier: StudyFolder) -> Knowledge:
    return knowledge_of(earlier)


def guess(share: float, seed: int = 1) -> Any:
    """A guess that is right about a share of what tells schedules apart; the rest is chance."""
    chance = dict(zip(KNOWN[:, 0], np.random.default_rng(seed).normal(size=len(KNOWN)), strict=True))

    def guessed(wanted: Array) -> Array:
        right = np.sin(wanted[:, 0]) + 0.3 * wanted[:, 1]
        wrong = np.array([chance.get(first, 0.0) for first in wanted[:, 0]])
        return share * right + (1 - share) * wrong

    return guessed


@pytest.mark.parametrize("count", [5, 10, 20])
def test_a_right_guess_takes_a_large_share_and_predicts_what_is_far(count: int) -> None:
    with_guess = Surrogate(KNOWN[:count], VALUES[:count], np.zeros(count), guess=guess(1.0))
    without = Surrogate(KNOWN[:count], VALUES[:count], np.zeros(count))
    left = [np.abs(one.means(KNOWN[20:]) - VALUES[20:]).mean() for one in (with_guess, without)]
    assert with_guess.chosen[1] == 0.5
    assert left[0] < 0.8 * left[1]


def test_a_guess_without_meaning_loses_its_share_as_results_come() -> None:
    shares = [
        np.mean([Surrogate(KNOWN[:n], VALUES[:n], np.zeros(n), guess=guess(0.0, s)).chosen[1] for s in range(20)])
        for n in (5, 10, 30)
    ]
    assert shares[2] < 0.1
    assert shares[2] <= shares[1] <= shares[0] + 0.05


def test_no_guess_and_one_without_a_share_predict_the_same() -> None:
    alone = Surrogate(KNOWN, VALUES, np.zeros(30))
    fixed = Surrogate(KNOWN, VALUES, np.zeros(30), (alone.chosen[0], 0.0), guess(0.5))
    for mine, other in zip(alone.predict(KNOWN + 0.1), fixed.predict(KNOWN + 0.1), strict=True):
        assert mine.tolist() == other.tolist()


def test_agreement_is_kendalls_tau_and_never_negative() -> None:
    from scipy.stats import kendalltau

    noisy = VALUES + RNG.normal(size=30)
    assert agreement(noisy, VALUES) == pytest.approx(kendalltau(noisy, VALUES).statistic)
    assert agreement(np.exp(VALUES), VALUES) == 1
    assert agreement(-VALUES, VALUES) == 0


def test_relative_features_are_the_same_on_a_model_whose_calls_make_two_passes() -> None:
    schedule = Schedule(stages=(Stage(sigmas=(1.0, 0.6, 0.3, 0.0)),))
    found = []
    for name in ("tiny", "tiny-cfg"):
        known = blueprint(name)
        described = np.array([features(schedule, price(schedule, known))])
        found.append(relative(described, price(known.baseline(), known)))
    assert found[0] == pytest.approx(found[1])


def test_knowledge_holds_what_was_found_and_neither_prompts_nor_images(
    earlier: StudyFolder, known: Knowledge, tmp_path: Path
) -> None:
    result = earlier.result()
    assert [one.schedule for one in known.results] == [one.schedule for one in result.evaluated]
    assert [one.cost for one in known.results] == pytest.approx([1 / one.speedup for one in result.evaluated])
    assert known.results[0].differences[0].delta == result.evaluated[0].scores["clip"].delta
    text = known.model_dump_json()
    assert not any(prompt in text for prompt, _ in earlier.prompts)
    file = tmp_path / "knowledge.json"
    file.write_text(text)
    assert read_knowledge(file) == known
    assert read_knowledge(file).digest == known.digest


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: data | {"results": []},
        lambda data: data | {"calls": 0},
        lambda data: data | {"more": 1},
        lambda data: data | {"objectives": data["objectives"][:1]},
        lambda data: data | {"results": [data["results"][0] | {"cost": float("nan")}]},
    ],
)
def test_a_broken_file_is_one_line(known: Knowledge, broken: Any, tmp_path: Path) -> None:
    file = tmp_path / "knowledge.json"
    file.write_text(json.dumps(broken(known.model_dump(mode="json"))))
    with pytest.raises(UserError, match=r"knowledge\.json") as error:
        read_knowledge(file)
    assert "\n" not in str(error.value)


def of_toy(out: Path, **changes: Any) -> SearchSettings:
    return toy_settings(out, trials=6, budget="4x", **changes)


def proposed(plan: Plan, count: int = 3) -> list[str]:
    trials: list[Trial] = []
    for _ in range(count):
        trials.append(propose(plan, [], trials))
    return [trial.schedule.content_hash for trial in trials]


def test_the_earlier_front_is_proposed_before_there_are_results(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.propose.proposer, "_DRAWN_UNSCORED", 1)
    plan = replace(make_plan(of_toy(tmp_path)), learnt=(known,))
    assert all(plan.budget.allows(plan.price(schedule)) for _, schedule, _ in plan.taught)
    front = {schedule.content_hash for schedule, _ in best_taught(plan)}
    assert front < {schedule.content_hash for _, schedule, _ in plan.taught}
    assert front & set(proposed(plan))
    assert proposed(plan) == proposed(plan)
    assert lessons_of(replace(plan, learnt=())) is None


def test_the_identity_names_what_was_learnt_and_is_as_before_without(known: Knowledge, tmp_path: Path) -> None:
    plan = make_plan(of_toy(tmp_path))
    assert "learnt" not in plan.identity
    assert "learn_from" not in plan.settings.model_dump()
    assert replace(plan, learnt=(known,)).identity["learnt"] == [["first", known.digest]]


@pytest.fixture
def file(known: Knowledge, tmp_path: Path) -> Path:
    found = tmp_path / "knowledge.json"
    found.write_text(known.model_dump_json())
    return found


def test_a_resumed_study_repeats_what_it_did_though_the_file_is_gone(file: Path, tmp_path: Path) -> None:
    whole = search(of_toy(tmp_path / "whole", learn_from=(str(file),)), executor=Counting())
    settings = of_toy(tmp_path / "parts", learn_from=(str(file),))
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=12))
    file.unlink()
    resumed = search(settings, executor=Counting(), resume=True)
    assert [one.schedule for one in resumed.evaluated] == [one.schedule for one in whole.evaluated]
    folder = open_study(settings.out, settings.name)
    assert folder.settings.learn_from == (str(file),)
    alone = search(of_toy(tmp_path / "alone"), executor=Counting())
    assert [one.schedule for one in alone.evaluated] != [one.schedule for one in whole.evaluated]
    assert (folder.path / LEARNT).is_file()
    provenance = presets.load(folder.preset).provenance
    assert provenance is not None
    kept = json.loads((folder.path / LEARNT).read_text())
    assert [named.split()[0] for named in provenance.learnt_from or ()] == [study["study"] for study in kept]


def test_a_study_is_not_resumed_with_other_lessons(file: Path, tmp_path: Path) -> None:
    settings = of_toy(tmp_path / "runs", learn_from=(str(file),))
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=4))
    with pytest.raises(UserError, match="another `learnt`"):
        search(settings.model_copy(update={"learn_from": ()}), executor=Counting(), resume=True)


def test_scores_of_other_objectives_teach_nothing(known: Knowledge, tmp_path: Path) -> None:
    objectives = [known.objectives[0].model_copy(update={"name": "other"}), known.objectives[1]]
    file = tmp_path / "other.json"
    file.write_text(known.model_copy(update={"objectives": tuple(objectives)}).model_dump_json())
    with pytest.raises(UserError, match="no scores of clip"):
        search(of_toy(tmp_path, learn_from=(str(file),)), executor=Counting())


def test_finished_studies_of_the_same_objectives_teach(earlier: StudyFolder, known: Knowledge) -> None:
    out = earlier.path.parent
    assert teachers(of_toy(out, study="second")) == ("first",)
    assert teachers(of_toy(out, study="first")) == ()  # it has started, and learns from none
    assert teachers(of_toy(out, study="second", objectives=("clip",))) == ()
