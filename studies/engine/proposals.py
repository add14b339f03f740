"""Keeps what was proposed, so that a resumed study need not choose its trials again.

A proposal is a pure function of what is known, so it is kept under a digest of that: the identity of the study,
the outcomes of the visible trials, and the pending ones. The file decides nothing. A proposal that it lacks is
made, for instance where a task that failed transiently has succeeded since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from studies.propose.trial import Trial
from studies.records.folder import saving
from studies.records.score_log import drop_unfinished_line, whole_lines
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.records.study_folder import StudyFolder

Propose: TypeAlias = "Callable[[Plan, Sequence[Trial], Sequence[Trial]], Trial]"


class Proposals:
    """Proposes trials, or knows what was proposed in earlier sittings.

    Args:
        plan: The search.
        folder: The study's folder; the caller holds its lock.
    """

    def __init__(self, plan: Plan, folder: StudyFolder):
        self._plan = plan
        self._path = folder.proposals
        self._digest, self._digested = _digest(plan.identity), 0
        with saving(self._path):
            drop_unfinished_line(self._path)
            self._known = {line[:_DIGITS]: line[_DIGITS:] for line in whole_lines(self._path)}

    def next(self, visible: Sequence[Trial], pending: Sequence[Trial], propose: Propose) -> Trial:
        """Returns the next trial.

        Args:
            visible: The trials whose outcomes it depends on, in order; none that was visible before is left out.
            pending: The trials started after those, in order.
            propose: Chooses a trial; called if none was chosen in an earlier sitting.
        """
        for finished in visible[self._digested :]:
            self._digest = _digest([self._digest.decode(), *_described(finished), _outcome(finished)])
        self._digested = len(visible)
        key = _digest([self._digest.decode(), *map(_described, pending)])
        known = self._known.pop(key, None)
        if known and (trial := self._read(known, len(visible) + len(pending))):
            return trial
        chosen = propose(self._plan, visible, pending)
        self._write(key, chosen)
        return chosen

    def _read(self, line: bytes, number: int) -> Trial | None:
        """Reads a proposal; None if the line is not as it was written."""
        written = line[_DIGITS:]
        with contextlib.suppress(ValueError, RecursionError):
            if hashlib.sha256(written).hexdigest()[:_DIGITS].encode() == line[:_DIGITS]:
                told = json.loads(written)
                schedule = Schedule.model_validate(told.pop("schedule"))
                price = self._plan.price(schedule)
                return Trial(
                    number=number, schedule=schedule, price=price, cost=self._plan.budget.cost(price), **told
                )
        return None

    def _write(self, key: bytes, trial: Trial) -> None:
        """Appends a proposal, not synced: what is lost is proposed again."""
        told = {
            "label": trial.label,
            "schedule": trial.schedule.model_dump(mode="json"),
            "params": None if trial.params is None else dict(trial.params),
            "rung": trial.rung,
            "continues": trial.continues,
        }
        written = json.dumps(told).encode()
        with saving(self._path), self._path.open("ab") as file:
            file.write(key + _digest(told) + written + b"\n")


_DIGITS = 32


def _digest(of: Any) -> bytes:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:_DIGITS].encode()


def _described(trial: Trial) -> list[Any]:
    return [trial.label, trial.schedule.content_hash, trial.rung, trial.continues]


def _outcome(trial: Trial) -> Any:
    """Returns what a proposal depends on of an outcome."""
    return [trial.result.losses, trial.result.errors, trial.result.promotable] if trial.succeeded else None
