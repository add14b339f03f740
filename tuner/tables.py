"""Tables of text, laid out in the width that a terminal has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuner.errors import UserError, readable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

_FRAME = 3  # characters beside every column
_PROSE = 24  # characters that a column of sentences needs to be readable
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(e[+-]?\d+)?[x%]?( [\[(].*)?")


@dataclass(frozen=True)
class Cells:
    """A table as text.

    Attributes:
        header: A title for each column, the most important columns first; titles break between words.
        rows: The cells of each row, one for each column.
        key: Titles of the columns that are shown at any width.
        prose: Titles of the columns of sentences, which may break between words, too.
        title: Line above the table.
        caption: Lines below the table.
        bold: Numbers of the rows that stand out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Collection[str] = ()
    prose: Collection[str] = ()
    title: str | None = None
    caption: str | None = None
    bold: Collection[int] = ()

    def column(self, index: int) -> list[str]:
        """Returns the cells below a title."""
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class View:
    """The part of a table that somebody asked to see.

    Attributes:
        columns: Names of the columns, in the order to show them; empty for those that fit. A name stands for every
            column whose title begins with it.
        top: Number of rows; None for all.
        wide: Whether to show every column, even beyond the terminal's width.
    """

    columns: tuple[str, ...] = ()
    top: int | None = None
    wide: bool = False


def layout(cells: Cells, view: View, width: int | None) -> Group:
    """Lays a table out for the terminal. A caption names the columns that the width leaves out.

    Args:
        cells: The table.
        view: The part to show.
        width: Characters of a line; None for as many as it takes.

    Raises:
        UserError: If the view names a column that the table does not have.
    """
    from rich.console import Group
    from rich.table import Table

    header, rows = list(map(readable, cells.header)), [list(map(readable, row)) for row in cells.rows]
    cells = replace(cells, header=header, rows=rows)  # what a terminal shows of them has another width
    shown = _shown(cells, view, width)
    hidden = [cells.header[index] for index in range(len(cells.header)) if index not in shown]
    captions = [] if cells.caption is None else [cells.caption]
    if hidden and not view.columns:
        captions.append(f"Not shown: {', '.join(hidden)}; --wide or --columns shows them.")
    table = Table()
    widths = _widths(cells, shown, width)
    for index in shown:
        numbers = all(_NUMBER.fullmatch(cell) for cell in cells.column(index) if cell)
        table.add_column(
            cells.header[index],
            justify="right" if numbers else "left",
            overflow="fold",
            width=widths[index],
        )
    for number, row in enumerate(cells.rows[: view.top]):
        table.add_row(*(row[index] for index in shown), style="bold" if number in cells.bold else None)
    titles = [] if cells.title is None else [cells.title]
    return Group(*map(_text, titles), table, *map(_text, captions))


def _text(line: str) -> Text:
    """Makes a line that no console highlights or takes for markup."""
    from rich.text import Text

    return Text(readable(line))


def _widths(cells: Cells, shown: Sequence[int], width: int | None) -> dict[int, int]:
    """Gives each column its longest word, and shares out the rest to those whose cells take the most lines.

    Where not even the words fit, those of the widest column are folded.
    """
    whole = {index: max(_longest(cells, index), len(cells.header[index])) for index in shown}
    widths = {index: _longest_word(cells, index) for index in shown}
    room = sum(whole.values()) if width is None else width - 1 - _FRAME * len(shown)
    while sum(widths.values()) > max(room, len(widths)):
        widths[max(shown, key=lambda index: widths[index])] -= 1
    for _ in range(min(room, sum(whole.values())) - sum(widths.values())):
        widths[max(shown, key=lambda index: whole[index] / widths[index])] += 1
    return widths


def _shown(cells: Cells, view: View, width: int | None) -> list[int]:
    """Returns the numbers of the columns to show, in order."""
    if view.columns:
        return list(dict.fromkeys(index for name in view.columns for index in _named(cells, name)))
    if view.wide or width is None:
        return list(range(len(cells.header)))
    return sorted(_fitting(cells, width))


def _named(cells: Cells, name: str) -> list[int]:
    wanted = name.strip().casefold()
    found = [index for index, title in enumerate(cells.header) if title.casefold().startswith(wanted)]
    if not wanted or not found:
        listed = ", ".join(title for title in cells.header if title)
        raise UserError(f"Table has no column {name!r}; --columns takes these, with commas between: {listed}.")
    return found


def _fitting(cells: Cells, width: int) -> Iterator[int]:
    """Yields the key columns, then the others in their order while they fit."""
    key = [index for index, title in enumerate(cells.header) if title in cells.key]
    yield from key
    left = width - 1 - sum(_needed(cells, index) + _FRAME for index in key)
    for index in range(len(cells.header)):
        needed = _needed(cells, index) + _FRAME
        if index not in key and needed <= left:
            left -= needed
            yield index


def _needed(cells: Cells, index: int) -> int:
    """Returns the characters that a column needs to be readable."""
    longest = _longest(cells, index)
    if cells.header[index] in cells.prose:
        longest = min(longest, _PROSE)
    return max(longest, _longest_word(cells, index))


def _longest(cells: Cells, index: int) -> int:
    """Returns the characters of the longest cell of a column; its title may break between words."""
    from rich.cells import cell_len

    return max([_longest_word(cells, index), *map(cell_len, cells.column(index))])


def _longest_word(cells: Cells, index: int) -> int:
    """Returns the characters of the longest word of a column, its title included."""
    from rich.cells import cell_len

    texts = (cells.header[index], *cells.column(index))
    return max((cell_len(word) for text in texts for word in text.split()), default=1)
