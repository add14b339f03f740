"""Draws schedules: the noise level and the size of every network call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.presets import Preset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
# Okabe and Ito's palette from a quarter of the size to all of it.
_COLOURS = {0.25: "#E69F00", 0.5: "#009E73", 0.75: "#56B4E9", 1.0: "#0072B2"}
_GREY = "#9AA0A6"


def schedules_figure(presets: Sequence[Preset]) -> Figure:
    """Draws one panel per preset: sigma against steps taken, one line per stage, coloured by its scale.

    A dotted line joins the end of a stage with the start of the next: it rises where noise is added.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(len(presets), _COLUMNS)
    rows = math.ceil(len(presets) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.5 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, preset in zip(panels, presets, strict=False):
        _draw(axes, preset)
    for axes in panels[len(presets) :]:
        axes.set_axis_off()
    labels = [
        Line2D([], [], color=colour, marker="o", label=f"scale {scale:g}") for scale, colour in _COLOURS.items()
    ]
    figure.legend(
        handles=labels, loc="outside lower center", ncols=len(labels) if columns > 1 else 2, frameon=False
    )
    return figure


def _draw(axes: Axes, preset: Preset) -> None:
    taken = 0
    before: float | None = None
    for stage in preset.schedule.stages:
        steps = range(taken, taken + stage.steps + 1)
        if before is not None:
            axes.plot([taken, taken], [before, stage.sigmas[0]], color=_GREY, linestyle=":")
        colour = _COLOURS[min(_COLOURS, key=lambda scale: abs(scale - stage.scale))]
        axes.plot(steps, stage.sigmas, color=colour, marker="o", markersize=3)
        taken, before = steps[-1], stage.sigmas[-1]
    axes.set_title(preset.name, fontsize=10)
    axes.set_xlabel("steps")
    axes.set_ylabel("sigma")
    axes.set_ylim(-0.05, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
