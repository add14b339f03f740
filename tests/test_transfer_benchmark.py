"""The benchmark of earlier studies: whose prompts are whose, what misleads, and how searches are compared."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import transfer
from studies.records.lessons import knowledge_of
from tests.studies.test_transfer import finished_study


@pytest.mark.parametrize("target", transfer.EARLIER)
def test_an_earlier_study_and_the_unseen_prompts_have_none_of_the_prompts_searched_first(target: str) -> None:
    prompts = transfer._plan(target, 0).prompts
    taught = transfer._plan(transfer.ON_TABLE, 0).prompts.search[-transfer.EARLIER_PROMPTS :]
    first = prompts.search[: transfer._plan(target, 0).rungs[0]]
    assert not {*taught, *prompts.held_out} & set(first)
    assert not set(taught) & set(prompts.held_out)
    assert prompts == transfer._plan(target, 7).prompts


def test_a_misleading_study_has_the_same_results_for_other_schedules(tmp_path: Path) -> None:
    known = knowledge_of(finished_study(tmp_path))
    dealt = transfer.misleading(known, 1)
    assert [one.schedule for one in dealt.results] == [one.schedule for one in known.results]
    differences = [
        [json.dumps([d.model_dump() for d in one.differences]) for one in each.results] for each in (known, dealt)
    ]
    assert Counter(differences[0]) == Counter(differences[1])
    assert differences[0] != differences[1]
    assert transfer.misleading(known, 1) == dealt != transfer.misleading(known, 2)


def test_seeds_are_compared_one_by_one_and_a_search_may_never_arrive() -> None:
    target = "tiny-cfg"
    without, with_it, misled = transfer.rows(target)
    spent = [(2.0, 1.0, 2.0), (4.0, 1.0, 8.0), (1.0, np.inf, 3.0)]
    found = [
        dict(zip((without, with_it, misled), one, strict=True))
        | {f"early: {row}": early for row, early in zip((without, with_it, misled), (1.0, 3.0, 0.5), strict=True)}
        for one in spent
    ]
    rows = {row["search"]: row for row in transfer.summary(target, found)["rows"]}
    assert rows[without]["share_of_without"] == [1, 1, 1]
    assert rows[with_it]["shares"] == [0.5, 0.25, None]
    assert (rows[with_it]["reached"], rows[with_it]["share_of_without"][0]) == (2, 0.5)
    assert rows[misled]["share_of_without"][0] == 2
    assert [rows[row]["early_gain"][0] for row in (without, with_it, misled)] == [0, 2, -0.5]
    assert "never" in transfer.report({"rows": list(rows.values())})


def test_what_is_finished_is_read_and_not_run_again(tmp_path: Path) -> None:
    kept = {"without": 1.0, "early: without": 2.0}
    (tmp_path / "tiny-cfg-seed-3.json").write_text(json.dumps(kept))
    assert transfer.run(("tiny-cfg", 3, tmp_path)) == kept
