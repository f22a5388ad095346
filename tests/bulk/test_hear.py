"""A recording through somebody who decodes windows: order, room, errors, who gives up."""

import asyncio
import threading
import weakref

import pytest
from listening import NAMES, PATIENCE_S, Replica, answer, blocks, counted, heard, numbers, said

from das_lib.bulk.hear import HearSettings, hear
from das_lib.errors import Reject
from das_lib.speech.audio import AudioError


def test_windows_stand_in_order_whatever_the_order_of_the_answers():
    replica, order = Replica(), []
    replica.hear = lambda audio, times: order.append(audio[0]) or answer(numbers(audio, times))
    result = heard(counted(310), replica)
    assert order != sorted(order), "the answers came in order: this shows nothing"
    assert said(result) == list(range(310))
    starts = [segment.start_s for segment in result.transcript.segments]
    assert starts == sorted(starts)
    assert (result.windows, len(replica.asked)) == (11, 11)
    transcript = result.transcript
    assert (transcript.id, transcript.language) == ("calls/a.wav", "en")
    assert (transcript.duration_s, transcript.speech_s) == (310, 310)
    assert {word.adapter for word in transcript.words} == {"food"}


class Crowded(Replica):
    """Answers nobody before ``room`` windows wait; counts the windows that are in memory."""

    def __init__(self, room):
        super().__init__()
        self.room, self.full = room, asyncio.Event()
        self.windows, self.most_waiting, self.most_in_memory = [], 0, 0

    async def wait(self, audio):
        self.windows.append(weakref.ref(audio))
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self.waiting == self.room:
            await asyncio.sleep(0.1)  # for those that should not come
            self.full.set()
        await self.full.wait()
        await super().wait(audio)
        in_memory = sum(window() is not None for window in self.windows)
        self.most_in_memory = max(self.most_in_memory, in_memory)


def test_room_bounds_the_windows_of_all_recordings_that_are_heard_at_once():
    room = 3

    async def run():
        replica, semaphore = Crowded(room), asyncio.Semaphore(room)
        both = [
            hear(blocks(counted(240)), replica, HearSettings(), None, semaphore, **NAMES)
            for _ in range(2)
        ]
        return replica, await asyncio.wait_for(asyncio.gather(*both), PATIENCE_S)

    replica, results = asyncio.run(run())
    assert [said(result) for result in results] == [list(range(240))] * 2
    assert replica.most_waiting == room, "room is neither left empty nor overdrawn"
    # Each of the two recordings holds the window that it read last besides.
    assert replica.most_in_memory <= room + 2


@pytest.mark.parametrize("room", [4, 20])
def test_a_rejected_window_ends_its_recording_and_the_others_are_cancelled(room):
    replica, rejected = Replica(), asyncio.Event()

    async def wait(audio):
        if audio[0] != 60:
            await asyncio.Event().wait()

    def reject(audio, times):
        rejected.set()
        return Reject("", "replica-died", "6 times")

    replica.wait, replica.hear = wait, reject
    with pytest.raises(AudioError, match=r"replica-died: 6 times") as caught:
        heard(counted(3000), replica, room=room)
    assert caught.value.reason == "replica-died"
    assert replica.cancelled == len(replica.asked) - 1
    assert replica.waiting == 0
    assert len(replica.asked) <= room + 1, "it was read on behind the rejection"


def test_nobody_reads_on_when_a_recording_has_ended():
    replica, begun, go = Replica(), threading.Event(), threading.Event()

    def slow():
        yield from blocks(counted(60))
        begun.set()
        assert go.wait(PATIENCE_S)
        yield from blocks(counted(60))

    async def reject(audio):
        while not begun.is_set():
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.2, go.set)

    replica.wait = reject
    replica.hear = lambda audio, times: Reject("", "replica-died", "")
    with pytest.raises(AudioError, match="replica-died"):
        heard(slow(), replica)
    assert go.is_set()


def test_what_a_replica_raises_is_raised_as_it_is():
    replica = Replica()

    def fail(audio, times):
        raise KeyError("a bug")

    replica.hear = fail
    with pytest.raises(KeyError, match="a bug"):
        heard(counted(90), replica)


@pytest.mark.parametrize("room", [1, 2, 20])
def test_a_recording_that_cannot_be_read_on_is_rejected_and_its_windows_cancelled(room):
    replica = Replica()

    def broken():
        yield from blocks(counted(120))
        raise AudioError("truncated", "ends at 120 s of 300 s")

    if room > 4:  # all windows are read before one is answered

        async def wait(audio):
            await asyncio.Event().wait()

        replica.wait = wait
    with pytest.raises(AudioError, match="truncated: ends at 120 s"):
        heard(broken(), replica, room=room)
    assert (replica.waiting, replica.cancelled) == (0, 4 if room > 4 else replica.cancelled)


def test_a_caller_that_gives_up_ends_the_windows_on_their_way():
    async def run():
        replica, semaphore = Replica(), asyncio.Semaphore(2)

        async def wait(audio):
            await asyncio.Event().wait()

        replica.wait = wait
        task = asyncio.create_task(
            hear(blocks(counted(300)), replica, HearSettings(), None, semaphore, **NAMES)
        )
        while replica.waiting < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (replica.waiting, replica.cancelled) == (0, 2)
        for _ in range(2):
            await asyncio.wait_for(semaphore.acquire(), 1)

    asyncio.run(run())
