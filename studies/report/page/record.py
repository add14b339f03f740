"""Reads what a study keeps while it runs, without changing it: another process may be writing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from studies.plan.plan import image_seeds
from studies.records.score_log import parse_line, whole_lines

if TYPE_CHECKING:
    import optuna

    from studies.records.study_folder import StudyFolder


@dataclass(frozen=True)
class ScoreLines:
    """The lines of a score log, in the order in which they were written.

    Attributes:
        lines: One for each finished unit of work; see `studies.records.score_log`.
        names: The plain name of each objective by its ``name:weights``.
        first_seed: Noise seed of the first search prompt.
        prompts: Search prompts.
    """

    lines: Sequence[Mapping[str, Any]]
    names: Mapping[str, str]
    first_seed: int
    prompts: int

    def searched(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is about search prompts."""
        return bool(line["seeds"][0] - self.first_seed < self.prompts)

    @cached_property
    def by_prompt(self) -> dict[str, dict[str, dict[int, float]]]:
        """Scores by schedule, objective and number of the search prompt."""
        scores: dict[str, dict[str, dict[int, float]]] = {}
        for line in filter(self.searched, self.lines):
            for spec, values in line.get("scores", {}).items():
                if spec in self.names:
                    known = scores.setdefault(line["schedule"], {}).setdefault(self.names[spec], {})
                    known |= {
                        seed - self.first_seed: value for seed, value in zip(line["seeds"], values, strict=True)
                    }
        return scores

    def of(self, schedule_hash: str, name: str) -> list[float]:
        """The scores of a schedule on the search prompts up to the first that it was not scored on."""
        known = self.by_prompt.get(schedule_hash, {}).get(name, {})
        scores: list[float] = []
        while len(scores) in known:
            scores.append(known[len(scores)])
        return scores


def score_lines(study: StudyFolder) -> ScoreLines:
    """Reads a study's score log; lines that are not whole or cannot be read are left out."""
    identity = study.identity
    lines = map(parse_line, whole_lines(study.scores))
    return ScoreLines(
        lines=[line for line in lines if line is not None and line["weights"] == identity["weights"]],
        names=dict(zip(identity["objectives"], study.directions, strict=True)),
        first_seed=image_seeds(identity["seed"]),
        prompts=identity["rungs"][-1],
    )


def optuna_study(study: StudyFolder) -> optuna.Study | None:
    """Opens the Optuna study in a study's folder for reading; None where it is elsewhere or not begun."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if study.settings.storage is not None or not study.journal.is_file():
        return None
    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = JournalStorage(JournalFileBackend(str(study.journal)))
            return optuna.load_study(study_name=study.name, storage=storage)
        except Exception:  # nothing was written yet, the folder has another name by now, or the journal is broken
            return None
