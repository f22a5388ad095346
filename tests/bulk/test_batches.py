"""Requests one by one, answers in batches."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from das_lib.bulk.batches import PASSED_OVER, Batches


class Engine:
    """Doubles numbers, a batch whenever the test lets it."""

    def __init__(self):
        self.batches, self.go = [], threading.Semaphore(0)

    def __call__(self, numbers):
        self.batches.append(numbers)
        assert self.go.acquire(timeout=10)
        if 13 in numbers:
            raise RuntimeError("an unlucky number")
        return [2 * number for number in numbers]


@pytest.fixture
def engine():
    return Engine()


def run(scenario, engine, *, size=4, wait_s=0.05, **options):
    async def main():
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(engine, thread, size=size, wait_s=wait_s, **options)
            return await asyncio.wait_for(scenario(batches), 20)

    return asyncio.run(main())


async def begun(engine, count):
    while len(engine.batches) < count:
        await asyncio.sleep(0.001)


def test_what_trickles_in_while_the_engine_works_is_one_batch(engine):
    async def scenario(batches):
        asked = [asyncio.create_task(batches.ask(0))]
        await begun(engine, 1)
        for number in range(1, 5):
            asked.append(asyncio.create_task(batches.ask(number)))
            await asyncio.sleep(0.1)  # longer than a free engine waits
        engine.go.release(2)
        return await asyncio.gather(*asked)

    assert run(scenario, engine) == [0, 2, 4, 6, 8]
    assert engine.batches == [[0], [1, 2, 3, 4]]


def test_a_free_engine_waits_for_a_batch_to_fill_and_no_longer(engine):
    async def scenario(batches):
        engine.go.release(10)
        return await asyncio.gather(*(batches.ask(number) for number in range(10)))

    assert run(scenario, engine, wait_s=0.01) == [2 * number for number in range(10)]
    assert engine.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_full_batch_does_not_wait(engine):
    async def scenario(batches):
        engine.go.release(1)
        return await asyncio.gather(*(batches.ask(number) for number in range(4)))

    assert run(scenario, engine, wait_s=1e9) == [0, 2, 4, 6]


def test_who_hurries_ends_the_wait_for_a_batch_to_fill(engine):
    async def scenario(batches):
        engine.go.release(2)
        asked = [asyncio.create_task(batches.ask(number)) for number in range(3)]
        await asyncio.sleep(0.1)
        assert not engine.batches
        batches.hurry(0.01)
        return [*await asyncio.gather(*asked), await batches.ask(3)]

    assert run(scenario, engine, wait_s=1e9) == [0, 2, 4, 6]
    assert engine.batches == [[0, 1, 2], [3]]


def odd(number):
    return number % 2


def test_a_batch_is_of_one_kind_and_full_ones_go_first(engine):
    async def scenario(batches):
        engine.go.release(9)
        return await asyncio.gather(*(batches.ask(number) for number in (1, 0, 2, 4, 3, 6, 8)))

    assert run(scenario, engine, kind=odd) == [2, 0, 4, 8, 6, 12, 16]
    assert engine.batches == [[0, 2, 4, 6], [1, 3], [8]]


def test_full_batches_do_not_pass_another_kind_over_for_ever(engine):
    async def scenario(batches):
        asked = [asyncio.create_task(batches.ask(number)) for number in (1, *range(0, 100, 2))]
        await begun(engine, 1)
        engine.go.release(99)
        return await asyncio.gather(*asked)

    run(scenario, engine, kind=odd)
    assert engine.batches.index([1]) == PASSED_OVER


def test_an_error_is_the_answer_to_its_batch_alone(engine):
    async def scenario(batches):
        engine.go.release(3)
        asked = (batches.ask(number) for number in (1, 13, 2, 3))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, *others = run(scenario, engine, size=2)
    assert isinstance(first, RuntimeError)
    assert isinstance(second, RuntimeError)
    assert others == [4, 6]


def test_a_cancelled_request_is_left_out_and_a_late_answer_harms_nobody(engine):
    async def scenario(batches):
        asked = [asyncio.create_task(batches.ask(0))]
        await begun(engine, 1)
        asked += [asyncio.create_task(batches.ask(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        asked[0].cancel()  # decoded already
        asked[1].cancel()  # not yet
        engine.go.release(2)
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run(scenario, engine)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, asyncio.CancelledError)
    assert third == 4
    assert engine.batches == [[0], [2]]


def test_an_engine_that_was_idle_is_asked_again(engine):
    async def scenario(batches):
        engine.go.release(2)
        return [await batches.ask(1), await batches.ask(2)]

    assert run(scenario, engine) == [2, 4]
