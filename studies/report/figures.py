"""Pictures of a study: the front, and a contact sheet of what its schedules draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from objectives.base import loss_sign
from studies.records.results import Baseline, Candidate, StudyResult
from studies.report.staircase import staircase
from tuner.presets import plain_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from objectives.base import Direction

# Okabe and Ito's palette: told apart by colour-blind readers and in grey print.
_FRONT, _PLAIN, _PRESET, _PICK = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_FAINT, _INK = "#B8BCC2", "#30343A"
_STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": "#9AA0A6",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#ECEEF0",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "none",
}


def front_figure(result: StudyResult, directions: Mapping[str, Direction]) -> Figure:
    """Draws one panel per objective: paired difference to the baseline against the cost of an image.

    The line joins those members of the front that no other member beats on the two axes of the panel. The other
    members are hollow: they are on the front for what they score on another objective, or are expected to score.
    Bars are 95 % intervals. Presets are numbered by cost and named in a list at the side, as their names would
    cover each other. The vertical range is chosen for the baseline, the pick, everything dearer on the front and
    the presets; what falls outside it is counted in a corner instead of flattening the rest.

    Args:
        result: The study.
        directions: Which way each objective improves.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names, presets = list(result.baseline.scores), _presets(result)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4 * len(names) + 2.6 * bool(presets), 5.4), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            _draw_panel(axes, result, name, directions[name])
        figure.suptitle(f"{result.study}: {result.trials} trials on {result.model}", fontsize=13)
        kinds = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            kinds.values(), kinds.keys(), loc="outside lower center", ncols=3 * len(names), frameon=False
        )
        if presets:
            numbered = [
                Line2D([], [], color=_PRESET, marker=f"${number}$", markersize=8, linestyle="none")
                for number in range(1, len(presets) + 1)
            ]
            listed = [preset.label for preset in presets]
            figure.legend(numbered, listed, loc="outside right upper", title="published presets", frameon=False)
    return figure


def _presets(result: StudyResult) -> list[Candidate]:
    """The presets that were evaluated, the cheapest first: the order of their numbers."""
    known = {candidate.trial: candidate for candidate in (*result.evaluated, *result.references)}.values()
    presets = (c for c in known if c.family == "preset")
    return sorted(presets, key=lambda candidate: candidate.cost)


def _solvers(plain: Iterable[Candidate]) -> list[str | None]:
    """The solvers of plain steps, the model's own (None) first."""
    return sorted({plain_steps(candidate.label)[1] for candidate in plain}, key=lambda solver: solver or "")


def _draw_panel(axes: Axes, result: StudyResult, name: str, direction: Direction) -> None:
    known = {candidate.trial: candidate for candidate in (*result.evaluated, *result.references)}
    searched = [candidate for candidate in known.values() if candidate.family == "search"]
    plain = sorted((c for c in known.values() if c.family == "plain"), key=lambda c: c.cost)
    ladders = {solver: [c for c in plain if plain_steps(c.label)[1] == solver] for solver in _solvers(plain)}
    presets = _presets(result)

    axes.axhline(0, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(result.baseline.cost, 0, "s", color=_INK, markersize=9, linestyle="none", zorder=5, label="baseline")
    axes.plot(*_points(searched, name), "o", color=_FAINT, markersize=4, zorder=2, label="trials")
    for solver, ladder in ladders.items():
        label, marker = (f"plain steps, {solver}", "v") if solver else ("plain steps", "^")
        _draw(axes, ladder, name, _PLAIN, marker, label, hollow=True, linestyle=":")
    _draw(axes, presets, name, _PRESET, "D", "published presets", hollow=True)
    _draw_front(axes, result.front, name, direction)
    _draw(axes, [result.pick], name, _PICK, "*", "pick", markersize=18)
    for number, candidate in enumerate(presets, start=1):
        _write_beside(axes, str(number), (number - 1) / len(presets), candidate, name)
    _limit(axes, list(known.values()), [*presets, *(c for c in result.front if c.cost >= result.pick.cost)], name)
    _label(axes, result.baseline, name)


def _draw_front(axes: Axes, front: Sequence[Candidate], name: str, direction: Direction) -> None:
    sign = loss_sign(direction)
    steps = staircase([(candidate.cost, sign * candidate.scores[name].delta) for candidate in front])
    joined = [front[index] for index in steps]
    hidden = [candidate for index, candidate in enumerate(front) if index not in steps]
    axes.plot(*_points(joined, name), color=_FRONT, linewidth=1.7, drawstyle="steps-post", zorder=3)
    _draw(axes, joined, name, _FRONT, "o", "Pareto front")
    _draw(axes, hidden, name, _FRONT, "o", "on the front for another score", face="white")


def _points(candidates: Iterable[Candidate], name: str) -> tuple[list[float], list[float]]:
    pairs = [(candidate.cost, candidate.scores[name].delta) for candidate in candidates]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _draw(
    axes: Axes,
    candidates: Sequence[Candidate],
    name: str,
    color: str,
    marker: str,
    label: str,
    *,
    linestyle: str = "none",
    markersize: float = 7,
    hollow: bool = False,
    face: str | None = None,
) -> None:
    """Draws candidates with their intervals; hollow marks are larger and lie on top, to show what is below."""
    if not candidates:
        return
    x, y = _points(candidates, name)
    intervals = [candidate.scores[name].ci95 for candidate in candidates]
    below = [max(0.0, value - low) for value, (low, _) in zip(y, intervals, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(y, intervals, strict=True)]
    axes.errorbar(
        x,
        y,
        yerr=[below, above],
        color=color,
        marker=marker,
        linestyle=linestyle,
        markersize=markersize + 4 * hollow,
        markerfacecolor="none" if hollow else face or color,
        markeredgecolor=color if hollow or face else "white",
        markeredgewidth=1.6 if hollow or face else 0.8,
        linewidth=1.7,
        elinewidth=1.0,
        capsize=2.5,
        zorder=5 if hollow else 6 if marker == "*" else 4,
        label=label,
    )


def _write_beside(axes: Axes, text: str, turn: float, candidate: Candidate, name: str) -> None:
    """Writes as on a clock, a part of a turn from the top, so that the texts of marks in one place are apart."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        (candidate.cost, candidate.scores[name].delta),
        xytext=(14 * math.sin(2 * math.pi * turn), 14 * math.cos(2 * math.pi * turn)),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=_PRESET,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=7,
    )


def _limit(axes: Axes, everything: Sequence[Candidate], shown: Sequence[Candidate], name: str) -> None:
    ends = [0.0, *(end for candidate in shown for end in candidate.scores[name].ci95)]
    spread = (max(ends) - min(ends)) or 1.0
    low, high = min(ends) - 0.4 * spread, max(ends) + 0.15 * spread
    axes.set_ylim(low, high)
    outside = sum(not low <= candidate.scores[name].delta <= high for candidate in everything)
    if outside:
        axes.text(0.99, 0.02, f"{outside} outside this range", transform=axes.transAxes, ha="right", fontsize=8.5)


def _label(axes: Axes, baseline: Baseline, name: str) -> None:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_title(name)
    axes.set_xlabel(f"{'TFLOPs' if baseline.seconds is None else 'seconds'} per image (log scale)")
    axes.set_ylabel("difference to the baseline on search prompts, 95 % interval")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.3g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())

    def inverse(value: Any) -> Any:  # matplotlib probes it at 0
        return baseline.cost / np.maximum(value, 1e-300)

    top = axes.secondary_xaxis("top", functions=(inverse, inverse))
    top.set_xlabel("speedup")
    top.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}x"))
    top.xaxis.set_minor_locator(NullLocator())


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image]]], columns: Sequence[str] = ()) -> Image:
    """Lays images out in a grid of labelled rows, such as one per schedule with one column per prompt.

    Small images are enlarged by a whole factor without smoothing, so that their pixels are seen as they are;
    large ones are reduced to 256 pixels.

    Args:
        rows: A label, which may have several lines, and the images of every row.
        columns: Labels of the columns, likewise; empty for none.

    Raises:
        ValueError: If there is no image at all.
    """
    from PIL import Image, ImageDraw, ImageFont

    images = [image for _, row in rows for image in row]
    if not images:
        raise ValueError("a contact sheet needs at least one image.")
    longest = max(max(image.size) for image in images)
    factor = max(1, 128 // longest) if longest <= 256 else 256 / longest
    width = round(max(image.width for image in images) * factor)
    height = round(max(image.height for image in images) * factor)
    gap, font = 6, ImageFont.load_default(size=14)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [measure.multiline_textbbox((0, 0), label, font=font) for label, _ in rows]
    left = 2 * gap + int(max(box[2] for box in boxes))
    height = max(height, int(max(box[3] for box in boxes)))
    heads = [measure.multiline_textbbox((0, 0), label, font=font) for label in columns]
    width = max([width, *(int(box[2]) for box in heads)])
    head = gap + int(max((box[3] + gap for box in heads), default=0))
    across = max(len(row) for _, row in rows)
    sheet = Image.new("RGB", (left + across * (width + gap), head + len(rows) * (height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(columns):
        draw.multiline_text((left + column * (width + gap), gap), label, fill=_INK, font=font)
    for row, (label, row_images) in enumerate(rows):
        top = head + row * (height + gap)
        draw.multiline_text((gap, top + height / 2), label, fill=_INK, font=font, anchor="lm")
        for column, image in enumerate(row_images):
            size = (round(image.width * factor), round(image.height * factor))
            method = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
            sheet.paste(image.convert("RGB").resize(size, method), (left + column * (width + gap), top))
    return sheet
