from __future__ import annotations

import signal
import socket

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from studies.work.task import Task
from studies.workers.deaths import FIRST_TASK_S, SHORTEST_LIMIT_S, SLOWEST, TaskLimit
from studies.workers.ray_connection import knock, own_sigterm
from tests.studies.toy import TOY

TASK = Task(TOY.plain(2, TOY.size), ("a fox",), (0,), TOY.size)


@seed(0)
@settings(max_examples=200)
@given(st.lists(st.floats(0, 1e5), max_size=20), st.floats(0, 1e6))
def test_no_task_that_takes_as_long_as_others_did_is_given_up(times: list[float], tflops: float) -> None:
    limit, given_limit = TaskLimit(tflops=lambda task: tflops), TaskLimit(7.0, lambda task: tflops)
    assert limit.seconds(TASK) == max(FIRST_TASK_S, tflops / SLOWEST)
    for index, seconds in enumerate(times):
        limit.finished(seconds)
        given_limit.finished(seconds)
        assert limit.seconds(TASK) == max(SHORTEST_LIMIT_S, 20 * max(times[: index + 1]), tflops / SLOWEST)
    assert given_limit.seconds(TASK) == 7.0


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_a_closed_port_is_told_at_once(form: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError):  # noqa: PT011 - refused here, timed out behind a firewall
        knock(form.format(port))


@pytest.mark.parametrize("address", ["auto", "local", "ray://host"])
def test_names_without_a_port_are_left_to_ray(address: str) -> None:
    knock(address)


def test_sigterm_stays_this_processs_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with own_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does
    assert signal.getsignal(signal.SIGTERM) == before
