"""Tables of the terminal: what is shown at which width, and that nothing is cut."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tuner.errors import UserError
from tuner.tables import Cells, View, layout

_WORDS = st.text("abcdefgh0123456789@+-.", min_size=1, max_size=9)
_TEXTS = st.lists(_WORDS, min_size=1, max_size=4).map(" ".join)


@st.composite
def _cells(draw: st.DrawFn) -> Cells:
    header = draw(st.lists(_TEXTS, min_size=1, max_size=6, unique=True))
    row = st.tuples(*(_TEXTS for _ in header))
    rows = draw(st.lists(row, min_size=1, max_size=4))
    key = draw(st.sets(st.sampled_from(header)))
    return Cells(header, rows, key=key, prose=draw(st.sets(st.sampled_from(header))))


def _drawn(cells: Cells, view: View, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(layout(cells, view, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@given(_cells(), st.integers(60, 160))
def test_no_word_is_cut_where_the_words_of_the_key_columns_fit(cells: Cells, width: int) -> None:
    index = {title: number for number, title in enumerate(cells.header)}
    words = {
        title: [word for text in (title, *cells.column(number)) for word in text.split()]
        for title, number in index.items()
    }
    if sum(max(map(len, words[title])) + 3 for title in cells.key) + 1 > width:
        return
    lines = _drawn(cells, View(), width)
    shown = " ".join(lines).split()
    assert all(len(line) <= width for line in lines)
    assert all(word in shown for title in cells.key for word in words[title])


@given(_cells())
def test_wide_shows_every_column(cells: Cells) -> None:
    shown = " ".join(_drawn(cells, View(wide=True), 1000)).split()
    assert all(word in shown for row in (cells.header, *cells.rows) for text in row for word in text.split())


def test_a_word_that_is_too_long_is_folded_and_no_other() -> None:
    cells = Cells(["name", "value"], [["x" * 60, "12345"]], key=["name", "value"])
    lines = _drawn(cells, View(), 40)
    assert all(len(line) <= 40 for line in lines)
    assert "12345" in "\n".join(lines)
    assert "".join(lines).count("x") == 60


def test_a_caption_names_the_columns_that_are_left_out() -> None:
    cells = Cells(["name", "source"], [["one", "x" * 60]], key=["name"])
    assert "Not shown: source" in "\n".join(_drawn(cells, View(), 60))
    assert "Not shown" not in "\n".join(_drawn(cells, View(), 100))


def test_named_columns_come_in_their_order_and_a_beginning_is_enough() -> None:
    cells = Cells(["trial", "clip difference", "clip mean"], [["29", "+0.43", "95.1"]])
    lines = _drawn(cells, View(columns=("clip", "TRIAL")), 80)
    places = [lines[1].index(title) for title in ("clip difference", "clip mean", "trial")]
    assert places == sorted(places)


def test_an_unknown_column_names_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"no column 'clop'; --columns takes these, .*: trial, clip"):
        layout(Cells(["trial", "clip"], [["1", "2"]]), View(columns=("clop",)), 80)


def test_numbers_are_aligned_to_the_right() -> None:
    cells = Cells(["name", "speedup"], [["a", "3.00x"], ["b", "13.21x"]])
    assert "┃ a    │   3.00x │".replace("┃", "│") in "\n".join(_drawn(cells, View(), 80))
