from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SHOWS = {
    "first_search": (r"baseline: 9\.70 GFLOPs, 50 network calls", r"\d+ trials, \d+ on the front", "Pareto front"),
    "reading_a_front": (
        r"knee: trial +\d+ .*x, clip [+-]",
        r"best:image_reward: trial",
        r"image_reward: [+-][\d.]+ \[.*\] on unseen prompts",
        r"is (as good|worse|undecided)",
        r"report\.html: [0-4]\.\d MB",
    ),
    "published_methods": (
        r"50 steps +3719\.23 +1\.00x +3719\.50",
        r"bottleneck-flux-3x +1162\.27 +3\.20x +1234\.39",
        r"without re-shifting +3\.18 .* -0\.184 .* -0\.476",
        r"nearest resampling +3\.18",
    ),
    "two_nodes": (
        r"2 nodes\n",
        r"\d+ of \d+ trials are finished; the second node is lost",
        r"the same front: True",
    ),
    "your_own": (
        r"(\S+ +is known\n){4}",
        r"on quick-tiny",
        r"colour difference",
        r"trial +\d+: .*x +\d+ steps at 0\.\d+, \d+ steps at 1\n",
        r"stage,scale,sigma\n1,0?\.?\d+,1\.0000",
    ),
}
"""What each notebook must print, as regular expressions."""


def texts(notebook: Any) -> Iterator[str]:
    """The text of every output."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text") or output.get("data", {}).get("text/plain", "")


def check_shows(name: str, notebook: Any) -> None:
    shown = "".join(texts(notebook))
    assert [pattern for pattern in SHOWS[name] if not re.search(pattern, shown)] == []
    assert "is missing" not in shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    executed = NotebookClient(notebook, timeout=550, kernel_name="python3").execute()
    check_shows(path.stem, executed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_shipped_executed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    check_shows(path.stem, notebook)
