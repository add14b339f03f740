"""What the tests in `tests/fuzz` share: how many examples they try, and how a file is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

EXAMPLES = 1000
"""Examples of all tests together; the option ``--fuzz 20000`` tries more."""

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**63, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_PIECES = (b"\x00", b"\xff", b"[", b"{", b"9" * 400, b"1e999", b"\n", b'"')


def fuzzed(share: float) -> Callable[[Any], Any]:
    """Makes a test try its share of all examples, always the same ones."""

    def decorate(test: Any) -> Any:
        checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
        most = max(1, round(EXAMPLES * share))
        tried = settings(max_examples=most, deadline=None, suppress_health_check=checks, database=None)(test)
        return pytest.mark.timeout(600 + most)(seed(0)(tried))

    return decorate


def broken_bytes(draw: Any, content: bytes) -> bytes:
    """Replaces a few bytes of a file, puts some in, or cuts it off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(found) - 1)))
        kind = draw(st.sampled_from(["replace", "insert", "cut", "repeat"]))
        if kind == "replace":
            found[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "insert":
            found[place:place] = draw(st.sampled_from(_PIECES))
        elif kind == "cut":
            del found[place:]
        else:
            found[place:place] = found[place : place + 40]
    return bytes(found)


def broken_json(draw: Any, content: bytes) -> bytes:
    """Replaces a value of a JSON file, or takes one away; one time in four it breaks the bytes instead."""
    if draw(st.integers(0, 3)) == 0:
        return broken_bytes(draw, content)
    data = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        _break_one(draw, data)
    return json.dumps(data).encode()


def _break_one(draw: Any, data: Any) -> None:
    while True:
        keys = sorted(data) if isinstance(data, dict) else range(len(data))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = data[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            data = inner
            continue
        if draw(st.integers(0, 4)) == 0:
            del data[key]
        elif isinstance(inner, int | float) and not isinstance(inner, bool) and draw(st.booleans()):
            data[key] = draw(st.sampled_from([0, -inner, inner * 10, inner / 3, inner + 1, 10**9, float("nan")]))
        else:
            data[key] = draw(_JSON)
        return
