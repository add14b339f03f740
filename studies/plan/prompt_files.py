"""Reads prompts from a file: plain text, or the formats of common benchmarks.

==========  ================================================================================================
``.txt``    one prompt per line; lines that start with ``#`` are comments (GenEval's ``generation_prompts``)
``.csv``    a header with a prompt column (DrawBench: ``Prompts``)
``.tsv``    the same with tabs, quotes being part of the text (PartiPrompts: ``Prompt``)
``.jsonl``  an object or a string per line (GenEval's ``evaluation_metadata``: ``prompt``)
``.json``   a list of strings or of objects (VBench: ``prompt_en``), or an object that holds such lists (HPSv2,
            COCO: ``caption``), or whose values are such objects (VBench-2.0)
==========  ================================================================================================

A file of any other suffix is read as plain text.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import UserError, one_line
from tuner.text_files import MEBIBYTE, read_text

MOST_BYTES = 64 * MEBIBYTE
MOST_PROMPTS = 1_000_000

FIELDS = ("prompt", "prompts", "prompt_en", "caption", "captions", "text")
"""Names of the column or field with the prompt, in any case; the first that is found counts."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REMEDY = f"name the one with the prompts {FIELDS[0]!r} (or one of {', '.join(FIELDS[1:])})"
_EXAMPLE = '{"prompt": "a red fox"}'


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """Reads a file of prompts.

    Args:
        path: The file; its suffix decides the format.

    Returns:
        The prompts in their order, without surrounding spaces, each once.

    Raises:
        UserError: If the file cannot be read as text, or breaks a rule of its format.
    """
    path = Path(path)
    text = read_text(path, "Prompts file", MOST_BYTES, "give a text file, one prompt per line")
    read = {".csv": _from_csv, ".tsv": _from_csv, ".jsonl": _from_jsonl, ".json": _from_json}
    found = read.get(path.suffix.lower(), _from_text)(path, text)
    prompts = list(dict.fromkeys(itertools.islice((prompt.strip() for prompt in found), MOST_PROMPTS + 1)))
    if len(prompts) > MOST_PROMPTS:
        raise UserError(f"Prompts file {str(path)!r} has more than {MOST_PROMPTS:,} prompts; split it.")
    for prompt in prompts:
        if _SURROGATE.search(prompt):
            raise UserError(
                f"Prompts file {str(path)!r} has half a character (a lone surrogate) in {prompt[:80]!r}; write "
                "characters beyond U+FFFF as they are, or as a pair of escapes."
            )
    return prompts


def _from_text(path: Path, text: str) -> Iterator[str]:
    lines = (line.strip() for line in _lines(text))
    return (line for line in lines if line and not line.startswith("#"))


def _from_csv(path: Path, text: str) -> Iterator[str]:
    tabs = path.suffix.lower() == ".tsv"
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    try:
        header = next(rows, [])
        column = _field(header)
        if column is None:
            raise UserError(
                f"Prompts file {str(path)!r} has no column of prompts in line 1, which names {_listed(header)}; "
                f"{_REMEDY}."
            )
        index = header.index(column)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= index or not row[index].strip():
                raise UserError(
                    f"Prompts file {str(path)!r} has no {column!r} in line {rows.line_num}; fill it in, or remove "
                    "the line."
                )
            if any(cell.strip() for cell in row[len(header) :]):
                remedy = "remove the extra tabs" if tabs else "put prompts with commas in quotes"
                raise UserError(
                    f"Prompts file {str(path)!r} has {len(row)} cells in line {rows.line_num}, and its header "
                    f"names {len(header)}; {remedy}."
                )
            yield row[index]
    except csv.Error as error:
        raise UserError(
            f"Prompts file {str(path)!r} is no table in line {rows.line_num} ({error}); put prompts with commas "
            'or quotes in quotes, and double the quotes inside: "a ""red"" fox".'
        ) from error


def _from_jsonl(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(_lines(text), start=1):
        if line.strip():
            value = _parsed(path, line, number, f"one object per line, such as {_EXAMPLE}")
            yield _prompt(path, f"line {number}", value)


def _from_json(path: Path, text: str) -> Iterator[str]:
    data = _parsed(path, text, 1, f"a list, such as [{_EXAMPLE}]")
    lists = _lists(data)
    if not lists:
        raise UserError(
            f"Prompts file {str(path)!r} holds no list of prompts, but {type(data).__name__}; write a list, such "
            f"as [{_EXAMPLE}]."
        )
    for place, items in lists.items():
        for index, item in enumerate(items):
            yield _prompt(path, f"{place}[{index}]", item)


def _parsed(path: Path, text: str, first: int, remedy: str) -> Any:
    """Parses JSON that begins in line number ``first`` of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"Prompts file {str(path)!r} is not JSON in line {first + error.lineno - 1} ({error.msg}); write "
            f"{remedy}."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
        raise UserError(
            f"Prompts file {str(path)!r} cannot be read from line {first} on ({one_line(error)}); write {remedy}."
        ) from error


def _lists(data: Any) -> Mapping[str, Sequence[Any]]:
    """Finds the lists of prompts by their place; an object may have other lists, too."""
    if isinstance(data, list):
        return {"": data}
    if not isinstance(data, dict):
        return {}
    lists = {name: value for name, value in data.items() if isinstance(value, list)}
    lists = {name: items for name, items in lists.items() if items and _has_prompt(items[0])}
    values = list(data.values())
    if not lists and values and all(isinstance(one, dict) and _has_prompt(one) for one in values):
        return {"": values}
    return lists


def _has_prompt(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, dict) and _field(list(item)) is not None)


def _prompt(path: Path, place: str, item: Any) -> str:
    """Returns the prompt of a string or an object."""
    if isinstance(item, dict):
        field = _field(list(item))
        if field is None:
            raise UserError(
                f"Prompts file {str(path)!r} has no field of prompts in {place}, which has {_listed(list(item))}; "
                f"{_REMEDY}."
            )
        item = item[field]
    if not isinstance(item, str) or not item.strip():
        raise UserError(
            f"Prompts file {str(path)!r} has {reprlib.repr(item)} for a prompt in {place}; write text, such as "
            f"{_EXAMPLE}."
        )
    return item


def _field(names: Sequence[str]) -> str | None:
    plain = {name.strip().lower(): name for name in reversed(names)}
    return next((plain[field] for field in FIELDS if field in plain), None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _lines(text: str) -> list[str]:
    r"""Splits text at ``\n``, ``\r\n`` and ``\r`` alone; ``str.splitlines`` ends lines at U+2028, too."""
    return re.split(r"\r\n|\n|\r", text)
