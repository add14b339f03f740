"""The last lines of a search: what was found, what it took, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from studies.judge.sequential import FEWEST
from studies.plan.settings import SearchSettings
from studies.records.results import PICK
from studies.report.numbers import difference, duration
from tuner.models import OF_MACHINES, blueprint

if TYPE_CHECKING:
    from studies.records.results import Checked, EndedBy, Loss, StudyResult
    from tuner.models import ModelOptions

_DRIFT = 0.05
"""Relative difference to the latency table that is worth a warning."""

_ENDED: dict[EndedBy, str] = {
    "trials": "trial limit reached",
    "time limit": "time limit reached",
    "max tflops": "TFLOPs limit reached",
    "patience": "no gain in the last trials",
    "unfinished": "the search is not over",
}


def unseen_cells(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Makes header and rows of the pick on unseen prompts: against the baseline and its rivals."""
    header = ["objective", "pick", "against", "speedup", "difference of the pick"]
    rows = []
    for name, score in result.pick.held_out.items():
        only_mean = name in result.fidelity
        mean = f"{score.mean:.4g}"
        rows.append([name, mean, "baseline", "1.00x", "" if only_mean else difference(score)])
        rows += [
            [name, mean, rival.label, f"{rival.speedup:.2f}x", difference(rival.pick[name])]
            for rival in result.rivals
        ]
    return header, rows


def pick_line(result: StudyResult) -> str:
    """Says in one line which schedule was picked."""
    count = f" {result.held_out_prompts}" if result.held_out_prompts else ""
    unseen = f"; on{count} prompts that the search never saw:" if result.pick.held_out else ""
    return f"pick: trial {result.pick.trial}, {result.pick.speedup:.2f}x fewer TFLOPs than the baseline{unseen}"


def verdicts(result: StudyResult) -> list[str]:
    """Says of the pick, and of plain steps at its cost, whether they are as good as the baseline."""
    return [f"{_name(result, one)}: {verdict_text(one)}" for one in result.checks]


def verdict_text(one: Checked) -> str:
    """Says which of three it was: as good within the margin, worse by so much, or undecided."""
    where = f"on {one.prompts} unseen prompts"
    if one.verdict == "as good":
        margins = ", ".join(dict.fromkeys(loss.margin for loss in one.losses.values()))
        return f"as good as the baseline (within {margins} on every objective, 95 % confidence) {where}"
    if one.verdict == "worse":
        lost = ", ".join(
            f"{name} loses at least {loss.low:.3g}, margin {_margin(loss)}"
            for name, loss in one.losses.items()
            if loss.within is False
        )
        return f"worse than the baseline by more than the margin {where}: {lost}"
    still = ", ".join(
        f"{name} may lose up to {loss.high:.3g}, margin {_margin(loss)}"
        for name, loss in one.losses.items()
        if loss.within is None
    )
    return f"undecided after {one.prompts} unseen prompts: {still}"


def _margin(loss: Loss) -> str:
    """Writes a margin, and in points what a relative one comes to on these prompts."""
    return loss.margin if f"{loss.points:g}" == loss.margin else f"{loss.margin} = {loss.points:.3g}"


def warnings(result: StudyResult) -> list[str]:
    """Warns of a search that is not over, and of samples that are too small for intervals to mean anything."""
    if result.ended_by == "unfinished":
        return [f"partial: the search is not over; {result.trials} trials so far, continue it with --resume"]
    counts = {"search": result.search_prompts, "held-out": result.held_out_prompts}
    few = [line for kind, count in counts.items() if count is not None for line in too_few(count, f"{kind} ")]
    return few + _drifted(result.drift)


def _drifted(drift: float | None) -> list[str]:
    """Warns of a latency table that does not say what images took."""
    if drift is None or abs(drift) <= _DRIFT:
        return []
    return [
        f"warning: images took {abs(100 * drift):.0f} % {'longer' if drift > 0 else 'less'} than was measured "
        "before the search, so the seconds above are off by as much; was the device shared, or another one?"
    ]


def too_few(count: int, kind: str = "") -> list[str]:
    """Warns of so many prompts, if they are too few for an interval."""
    if count >= FEWEST:
        return []
    return [f"warning: {count} {kind}prompts are too few; intervals over fewer than {FEWEST} mean little"]


def cost_lines(result: StudyResult) -> list[str]:
    """Says what the search took and why it ended."""
    stopped = sum(candidate.stopped_at is not None for candidate in result.evaluated)
    saved = result.reused.prefixes + result.reused.scores
    return [
        f"spent: {result.tflops_spent:.4g} TFLOPs in {duration(result.elapsed_s)}; saved by reuse: {saved:.4g} "
        f"TFLOPs; {stopped} of {len(result.evaluated)} schedules stopped early; {_ENDED[result.ended_by]}."
    ]


def next_lines(result: StudyResult, settings: SearchSettings) -> list[str]:
    """Says what to do with the result: commands that find the study and draw with the weights that it scored."""
    undecided = any(one.verdict == "undecided" for one in result.checks)
    more = ["  tuner search ... --resume --check-prompts 1000   decide it on more prompts"]
    elsewhere = [] if settings.out == SearchSettings.model_fields["out"].default else ["--out", settings.out]
    target = settings.for_target or "comfyui"
    drawing = [*_typed(settings.options), "-o", "video.mp4" if _draws_videos(settings) else "image.png"]
    return [
        "next:",
        f"  {shlex.join(['tuner', 'report', result.study, *elsewhere, '-o', 'report.html'])}",
        f'  tuner sample {shlex.quote(result.preset)} "..." {shlex.join(drawing)}',
        f"  {shlex.join(['tuner', 'export', result.study, *elsewhere, '--format', target])}",
        *(more if undecided else []),
    ]


def _typed(options: ModelOptions) -> list[str]:
    """Returns the options that no preset names as they are typed."""
    words: list[str] = []
    for name in OF_MACHINES:
        flag, value = name.replace("_", "-"), getattr(options, name)
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", value]
    return words


def _draws_videos(settings: SearchSettings) -> bool:
    return blueprint(settings.model).with_options(settings.options).frames > 1


def _name(result: StudyResult, one: Checked) -> str:
    return f"pick (trial {result.pick.trial})" if one.label == PICK else one.label
