"""Reads the votes that people cast on a page, and says which schedule they prefer, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from studies.report.tables import score_text
from tuner.errors import UserError
from tuner.presets import first_problem
from tuner.tables import Cells

if TYPE_CHECKING:
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder

_CONFIDENCE = 0.95


class Vote(BaseModel):
    """One judgement of a pair of images whose sides were drawn by lot.

    Attributes:
        trial: The schedule that was shown beside the baseline.
        prompt: Number of the search prompt, from 0.
        winner: What was preferred.
    """

    model_config = ConfigDict(frozen=True)

    trial: int
    prompt: int
    winner: Literal["schedule", "baseline", "tie"]


class Ballot(BaseModel):
    """A file of votes.

    Attributes:
        study: Id of the study whose page they were cast on.
        votes: In the order in which they were cast.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    votes: tuple[Vote, ...]


class Tally(BaseModel):
    """What people think of a schedule.

    Attributes:
        trial: Its trial.
        wins: Votes for the schedule.
        losses: Votes for the baseline.
        ties: Votes for neither.
        win_rate: Wins in parts of wins and losses; None without any.
        ci95: Wilson's 95 % interval of the win rate (JASA 22, 1927); it takes votes for independent.
    """

    model_config = ConfigDict(frozen=True)

    trial: int
    wins: int
    losses: int
    ties: int
    win_rate: float | None
    ci95: tuple[float, float] | None


def read_votes(study: StudyFolder, paths: Sequence[Path]) -> list[Vote]:
    """Reads files of votes.

    Raises:
        UserError: If one cannot be read, is no file of votes, or belongs to another study.
    """
    votes: list[Vote] = []
    for path in paths:
        try:
            ballot = Ballot.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Votes {str(path)!r} cannot be read: {error}.") from error
        except ValidationError as error:
            raise UserError(
                f"Votes {str(path)!r} are not a file that a page saves: {first_problem(error)}; save them there."
            ) from error
        if ballot.study != study.id:
            raise UserError(
                f"Votes {str(path)!r} were cast on the page of another study, not {study.name!r}; name that study."
            )
        votes += ballot.votes
    return votes


def tallies(votes: Sequence[Vote]) -> list[Tally]:
    """Counts votes by schedule."""
    return [
        _tally(trial, [vote for vote in votes if vote.trial == trial])
        for trial in sorted({v.trial for v in votes})
    ]


def _tally(trial: int, votes: Sequence[Vote]) -> Tally:
    from scipy.stats import binomtest

    winners = [vote.winner for vote in votes]
    wins, losses, ties = (winners.count(kind) for kind in ("schedule", "baseline", "tie"))
    rate = interval = None
    if wins + losses:
        rate = wins / (wins + losses)
        ends = binomtest(wins, wins + losses).proportion_ci(_CONFIDENCE, method="wilson")
        interval = (float(ends.low), float(ends.high))
    return Tally(trial=trial, wins=wins, losses=losses, ties=ties, win_rate=rate, ci95=interval)


def votes_table(result: StudyResult, counted: Sequence[Tally]) -> Cells:
    """Sets what people prefer beside what the objectives say, each against the baseline."""
    known: Mapping[int, Candidate] = {candidate.trial: candidate for candidate in result.evaluated}
    header = ["trial", "better", "worse", "tie", "win rate", *result.baseline.scores]
    rows = []
    for tally in counted:
        if tally.trial not in known:
            raise UserError(f"Votes name trial {tally.trial}, which study {result.study!r} does not have.")
        scores = known[tally.trial].scores
        rate = "-"
        if tally.win_rate is not None and tally.ci95 is not None:
            rate = f"{tally.win_rate:.0%} [{tally.ci95[0]:.0%}, {tally.ci95[1]:.0%}]"
        counts = (tally.trial, tally.wins, tally.losses, tally.ties)
        rows.append([*map(str, counts), rate, *(score_text(scores[name]) for name in result.baseline.scores)])
    return Cells(
        header,
        rows,
        key=header[:5],
        title=f"Blind votes on {result.study}: schedules against the baseline",
        caption="Win rate without ties, Wilson's 95 % interval; scores on the search prompts.",
    )
