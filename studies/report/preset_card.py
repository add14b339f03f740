"""The page of a preset on the hub: what it runs, what it costs, how good it is, and how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO

import yaml

from studies.report.schedule_figure import schedules_figure
from tuner.presets import ANY_MODEL, Preset, Score

PICTURE = "schedule.png"


def picture(preset: Preset) -> bytes:
    """Draws the schedule as a PNG file."""
    file = BytesIO()
    schedules_figure([preset]).savefig(file, format="png", dpi=110)
    return file.getvalue()


def card(preset: Preset, repo: str, base_model: str | None, licence: str | None) -> str:
    """Writes ``README.md`` of a repository that holds a preset and its `PICTURE`.

    Args:
        preset: What the repository holds.
        repo: ``owner/name`` of the repository.
        base_model: Hub id of the model; None if there is none.
        licence: Identifier of the licence as the hub spells it; None if it is not known.
    """
    known = {"base_model": base_model, "license": licence}
    head = {key: value for key, value in known.items() if value is not None} | {"tags": ["tuner"]}
    model = "any model" if preset.model == ANY_MODEL else f"`{preset.model}`"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {preset.name}",
        f"A sampling schedule for {model} at {preset.height}x{preset.width}, as a preset of `tuner`.",
        f"Source: {_line(preset.source)}",
        preset.notes.strip(),
        f"![Noise level and size of every step]({PICTURE})",
        _stages(preset),
        _cost(preset),
        _scores("Scores on prompts that the search never saw", preset.scores),
        _scores("Scores on the prompts of the search", preset.search_scores),
        _use(preset, repo),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stages(preset: Preset) -> str:
    rows = [
        (
            number,
            f"{stage.scale:g}",
            preset.schedule.solver_of(number - 1),
            stage.steps,
            ", ".join(f"{sigma:.4g}" for sigma in stage.sigmas),
        )
        for number, stage in enumerate(preset.schedule.stages, start=1)
    ]
    table = _table(["stage", "scale", "solver", "steps", "sigmas"], rows)
    return (
        f"## Schedule\n\n{table}\n\nA scale is a fraction of height and width. `preset.yaml` holds every option."
    )


def _cost(preset: Preset) -> str:
    if preset.cost is None:
        return ""
    row = (f"{preset.cost.tflops:.6g}", preset.cost.nfe, f"{preset.cost.speedup:.2f}x")
    return "## Cost\n\n" + _table(["TFLOPs per image", "network calls", "speed-up over the baseline"], [row])


def _scores(title: str, scores: dict[str, Score]) -> str:
    if not scores:
        return ""
    rows = [
        (name, f"{score.mean:.6g}", f"{score.delta:+.4g}", f"[{score.ci95[0]:+.3g}, {score.ci95[1]:+.3g}]")
        for name, score in scores.items()
    ]
    return f"## {title}\n\n" + _table(["objective", "mean", "difference to the baseline", "95 % interval"], rows)


def _use(preset: Preset, repo: str) -> str:
    needs_model = " --model NAME" if preset.model == ANY_MODEL else ""
    commands = [f'tuner sample {repo} "a red fox"{needs_model} -o fox.png']
    if preset.provenance is not None and (preset.scores or preset.search_scores):
        commands.append(f"tuner eval --verify {repo}      # measures the recorded scores again")
    return "## Use\n\n```sh\n" + "\n".join(commands) + "\n```"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_line(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def _line(text: object) -> str:
    return " ".join(str(text).split())
