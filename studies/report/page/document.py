"""Puts the page together: one HTML file with its style, its script, its data and its images inside."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies.plan.plan import versions
from studies.report.page.contents import Contents
from studies.report.page.images import packed
from studies.report.page.words import amount, command, found_unseen, headline
from studies.report.tables import score_text, shorthand

if TYPE_CHECKING:
    from studies.records.study_folder import StudyFolder

_FOLDER = Path(__file__).parent
_SCRIPTS = ("base", "axes", "front", "schedule", "compare", "vote", "history", "main")
_LARGEST_PAGE = 4_800_000
_LARGEST_TEXT = 3_800_000


def page(study: StudyFolder) -> str:
    """Makes the page of a study; an unfinished one's is marked as such.

    The page asks nothing of a network and runs no script but its own: its content security policy names that
    script by its hash. Texts of users, prompts and names, are escaped in the markup and in the data.

    Args:
        study: The study.

    Returns:
        HTML of less than 5 MB: images are made as small as that takes.

    Raises:
        UserError: If no schedule was scored on all search prompts yet.
    """
    contents = Contents(study)
    result, settings = contents.result, study.settings
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    scripts = (_FOLDER / "script" / f"{name}.js" for name in _SCRIPTS)
    script = "".join(path.read_text(encoding="utf-8") for path in scripts)
    data = contents.data()
    text = embedded(data)
    kept = {one.schedule.content_hash: one for one in contents.shown}
    files = {key: study.images(key) for key in (study.baseline.content_hash, *kept)}
    images, side = packed(files, max(_LARGEST_PAGE - _LARGEST_TEXT, _LARGEST_PAGE - len(text)))
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("index.html.j2").render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_source(style),
        script_hash=_source(script),
        data=Markup(text),
        images=Markup(embedded(images)),
        side=side,
        partial=contents.partial,
        result=result,
        settings=settings,
        identity=study.identity,
        created=study.created,
        budget=settings.budget,
        headline=headline(result),
        verdicts=found_unseen(result, study.directions),
        unseen=len(study.prompts) - contents.scores.prompts,
        amount=amount,
        shorthand=shorthand,
        score_text=score_text,
        command=command(settings),
        versions=versions(),
    )


def embedded(data: Any) -> str:
    """Writes data as JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(text: str) -> Markup:
    """Names an inline script or style in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")  # base64 has no character to escape
