"""What the shell completes: names of models, presets, prompt sets and studies.

A completer returns the names that begin with what is typed, and imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem


def models(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Completes short names of models, or else folders."""
    from tuner.models import available

    return _names(available(), typed) or [CompletionItem(typed, type="dir")]


def presets(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Completes names of shipped presets, or else files."""
    from tuner.presets import available

    return _names(available(), typed) or [CompletionItem(typed, type="file")]


def prompt_sets(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Completes names of shipped prompt sets."""
    from studies.plan.prompts import shipped_sets

    return _names((shipped.name for shipped in shipped_sets()), typed)


def studies(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Completes the folders of ``--out`` that hold a study."""
    folder = Path(context.params.get("out") or "runs")
    return _names((path.parent.name for path in folder.glob("*/settings.json")), typed)


def studies_and_presets(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Completes studies and shipped presets, or else files."""
    return [*studies(context, parameter, typed), *presets(context, parameter, typed)]


def _names(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(typed)]
