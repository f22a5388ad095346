"""Recordings in turn, and engines in processes of their own."""

import os

from das_lib.bench.apart import apart
from das_lib.bench.longform import in_turn


def test_each_call_hears_the_next_recording():
    found = [None] * 3
    hear = in_turn("abc", str.upper, found)
    hear()
    hear()
    assert found == ["A", "B", None]
    found[0] = None
    hear()
    hear()
    assert found == ["A", "B", "C"]


def adder(number):
    return lambda other: (number + other, os.getpid())


def test_what_is_measured_apart_answers_from_one_other_process():
    with apart(adder, 40) as add:
        answers = [add(1), add(2)]
    assert [number for number, _ in answers] == [41, 42]
    [process] = {process for _, process in answers}
    assert process != os.getpid()
