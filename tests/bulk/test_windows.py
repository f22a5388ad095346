from itertools import pairwise

import numpy as np
import pytest
from hole_answers import window as seconds_of
from hypothesis import given, settings
from hypothesis import strategies as st
from told import ToldVad, frames

from das_lib.bulk.pack import SHORTEST, Piece, Window
from das_lib.bulk.vad import FRAME, Regions
from das_lib.bulk.windows import Windows, WindowSettings
from das_lib.errors import DasError
from das_lib.speech.audio import SAMPLE_RATE


def recording(num_samples):
    """Every sample another value, none zero."""
    return np.arange(1, num_samples + 1, dtype=np.float32)


def cut(probabilities, num_samples=None, **options):
    """Windows of a recording in which the VAD says ``probabilities``."""
    num_samples = len(probabilities) * FRAME if num_samples is None else num_samples
    windows = Windows([recording(num_samples)], ToldVad(probabilities), WindowSettings(**options))
    return list(windows)


# Random layouts, cut with a longest window of few seconds, so that every rule comes into play.

runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.4, 0.6, 0.9, 1.0]), st.integers(1, 60)),
    min_size=1,
    max_size=30,
).map(lambda parts: np.concatenate([np.full(n, p, np.float32) for p, n in parts]))
options = st.fixed_dictionaries(
    {
        "max_s": st.sampled_from([1.0, 1.7, 3.0]),
        "max_gap_s": st.sampled_from([None, 0.0, 0.4, 1.0]),
        "join_gap_s": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "break_from_s": st.sampled_from([0.0, 0.7, 1.5, 30.0]),
        "min_speech_s": st.sampled_from([0.0, 0.1]),
        "min_silence_s": st.sampled_from([0.1, 0.3]),
        "pad_s": st.sampled_from([0.0, 0.05, 0.2]),
    }
)


def check_audio(window, audio):
    """Whether the window holds what its pieces say, and zeros where they are too short."""
    at = 0
    for piece in window.pieces:
        end = at + piece.end - piece.start
        assert piece.at == at
        assert np.array_equal(window.audio[at:end], audio[piece.start : piece.end])
        at = end
    assert len(window.audio) == max(at, SHORTEST)
    assert not window.audio[at:].any()


def regions_of(probabilities, num_samples, options):
    names = ("min_speech_s", "min_silence_s", "pad_s", "max_s")
    regions = Regions(threshold=0.5, **{name: options[name] for name in names})
    return [*regions.feed(probabilities), *regions.finish(num_samples)]


@given(runs, options, st.integers(1, FRAME), st.data())
@settings(deadline=None, max_examples=300)
def test_windows_hold_all_speech_once_and_what_they_say_they_hold(
    probabilities, options, last, data
):
    num_samples = (len(probabilities) - 1) * FRAME + last
    audio = recording(num_samples)
    cuts = data.draw(st.lists(st.integers(0, num_samples), max_size=6))
    windows = Windows(
        np.split(audio, sorted(cuts)), ToldVad(probabilities), WindowSettings(**options)
    )
    found = list(windows)
    pieces = [piece for window in found for piece in window.pieces]

    assert windows.num_samples == num_samples
    assert windows.speech_samples == sum(piece.end - piece.start for piece in pieces)
    assert all(0 <= piece.start < piece.end <= num_samples for piece in pieces)
    assert all(a.end <= b.start for a, b in pairwise(pieces))
    for window in found:
        assert window.audio.dtype == np.float32
        assert SHORTEST <= len(window.audio) <= options["max_s"] * SAMPLE_RATE
        check_audio(window, audio)

    regions = regions_of(probabilities, num_samples, options)
    assert bool(found) == bool(regions)
    for region in regions:
        assert [p.start <= region.start and region.end <= p.end for p in pieces].count(True) == 1


@given(runs, options)
@settings(deadline=None, max_examples=300)
def test_windows_end_where_the_rules_say(probabilities, options):
    num_samples = len(probabilities) * FRAME
    regions = regions_of(probabilities, num_samples, options)
    if num_samples <= options["max_s"] * SAMPLE_RATE or not regions:
        return
    found = cut(probabilities, **options)
    # A window begins and ends with a region.
    assert [(window.pieces[0].start, window.pieces[-1].end) for window in found] == [
        (group[0].start, group[-1].end) for group in grouped(regions, options)
    ]
    join = round(options["join_gap_s"] * SAMPLE_RATE)
    assert [sum(p.end - p.start for p in window.pieces) for window in found] == [
        joined_length(group, join) for group in grouped(regions, options)
    ]


def grouped(regions, options):
    """What the rules make of the regions, in the plainest way."""
    longest, join, break_from = (
        round(options[name] * SAMPLE_RATE) for name in ("max_s", "join_gap_s", "break_from_s")
    )
    max_gap = np.inf if options["max_gap_s"] is None else options["max_gap_s"] * SAMPLE_RATE
    groups, rest = [], list(regions)
    while rest:
        fitting, full = 1, False
        while fitting < len(rest) and rest[fitting].start - rest[fitting - 1].end <= max_gap:
            full = joined_length(rest[: fitting + 1], join) > longest
            if full:
                break
            fitting += 1
        count = fitting
        if full:
            late = [n for n in range(1, fitting + 1) if joined_length(rest[:n], join) >= break_from]
            pauses = {n: rest[n].start - rest[n - 1].end for n in late}
            if late:
                longest_pause = min(max(pauses.values()), SAMPLE_RATE)
                count = max(n for n in late if pauses[n] >= longest_pause)
        groups.append(rest[:count])
        rest = rest[count:]
    return groups


def joined_length(regions, join):
    pauses = (min(b.start - a.end, join) for a, b in pairwise(regions))
    return sum(region.end - region.start for region in regions) + sum(pauses)


def test_a_recording_of_one_window_is_heard_whole_if_anybody_speaks():
    probabilities = frames((12, 0), (1, 0.9), (16, 0))
    for num_samples in (len(probabilities) * FRAME, len(probabilities) * FRAME - 100):
        (window,) = cut(probabilities, num_samples)
        assert window.pieces == (Piece(0, num_samples, 0),)
        assert np.array_equal(window.audio, recording(num_samples))


def test_exactly_30_s_are_heard_whole_and_a_sample_more_is_cut():
    probabilities = frames((10, 0), (1, 0.9), (20, 0))
    (whole,) = cut(probabilities, 30 * SAMPLE_RATE)
    assert whole.duration_s == 30
    (short,) = cut(probabilities, 30 * SAMPLE_RATE + 1)
    assert short.duration_s < 2


@pytest.mark.parametrize("seconds", [0, 5, 95])
def test_where_nobody_speaks_there_is_no_window(seconds):
    probabilities = frames((seconds, 0.1))
    windows = Windows(
        [recording(len(probabilities) * FRAME)], ToldVad(probabilities), WindowSettings()
    )
    assert list(windows) == []
    assert (windows.num_samples, windows.speech_samples) == (len(probabilities) * FRAME, 0)


def test_of_a_long_pause_half_is_kept_on_each_side():
    probabilities = frames((4.8, 0.9), (6.4, 0), (4.8, 0.9), (32, 0))
    (window,) = cut(probabilities, pad_s=0, join_gap_s=0.5)
    first_end, second_start = round(4.8 * SAMPLE_RATE), round(11.2 * SAMPLE_RATE)
    assert window.pieces == (
        Piece(0, first_end + 4000, 0),
        Piece(second_start - 4000, round(16 * SAMPLE_RATE), first_end + 4000),
    )


# Ten sentences of 4.8 s, of which five and the pauses between them fit into a window.

S, L, XL, XXL = 0.48, 0.8, 1.28, 1.6


@pytest.mark.parametrize(
    ("pauses", "options", "sentences"),
    [
        # Behind 20 s is behind the fourth sentence or a later one; of equal pauses, the last.
        ([S, S, S, S, S], {}, [5, 5]),
        ([S, L, S, L, S], {}, [4, 5, 1]),
        ([S, S, XL, L, S], {}, [4, 5, 1]),
        ([S, S, XL, L, S], {"break_from_s": 15}, [3, 5, 2]),
        ([L, L, S, S, S], {}, [5, 5]),
        # The pause before what does not fit counts too.
        ([S, S, L, S, XL], {}, [5, 5]),
        # From a second on they are equal.
        ([S, S, S, XXL, XL], {}, [5, 5]),
        # The whole length of a pause counts, not what is kept of it.
        ([S, S, L, XL, L], {"join_gap_s": 0.4}, [4, 5, 1]),
        ([XL, L, S, S, S], {"break_from_s": 0}, [1, 1, 5, 3]),
        ([XL, L, S, L, S], {"break_from_s": 30}, [5, 5]),
    ],
)
def test_a_full_window_ends_at_its_longest_pause(pauses, options, sentences):
    pauses = pauses + [S] * 4
    parts = [part for pause in pauses for part in ((4.8, 0.9), (pause, 0))]
    probabilities = frames(*parts, (4.8, 0.9))
    found = cut(probabilities, pad_s=0, **options)
    starts = np.cumsum([0, *(4.8 + pause for pause in pauses)])
    ends = np.searchsorted(starts, [window.pieces[-1].end / SAMPLE_RATE for window in found])
    assert np.diff(ends, prepend=0).tolist() == sentences


def test_what_a_break_leaves_is_cut_again_where_it_is_still_too_long():
    # The last sentence fits neither to both before nor to the second alone.
    probabilities = frames((16, 0.9), (3.2, 0), (6.4, 0.9), (0.64, 0), (28.8, 0.9))
    found = cut(probabilities, pad_s=0, break_from_s=15)
    assert [round(window.duration_s, 1) for window in found] == [16, 6.4, 28.8]


@pytest.mark.parametrize("shift", range(0, 64, 3))
def test_the_kept_pause_is_real_audio_wherever_the_blocks_end(shift):
    silence, pause, speech = np.zeros(1000 + shift), np.zeros(80), np.full(100, 0.9)
    probabilities = np.concatenate([silence, speech, pause, speech, silence])
    (window,) = cut(probabilities, pad_s=0, join_gap_s=2)
    assert [piece.end - piece.start for piece in window.pieces] == [100 * FRAME + 16_000] * 2
    check_audio(window, recording(len(probabilities) * FRAME))


def test_a_pause_ends_the_window_if_it_is_longer_than_allowed():
    probabilities = frames((4.8, 0.9), (0.64, 0), (4.8, 0.9), (32, 0))
    assert len(cut(probabilities, pad_s=0, max_gap_s=0.64)) == 1
    assert len(cut(probabilities, pad_s=0, max_gap_s=0.63)) == 2


# The second is a recording that is heard whole.
@pytest.mark.parametrize("silence", [32, 6.4])
def test_a_short_pause_stays_as_it_was_and_the_window_knows_of_it(silence):
    probabilities = frames((4.8, 0.9), (0.48, 0), (4.8, 0.9), (silence, 0))
    (window,) = cut(probabilities, pad_s=0)
    if silence > 30:
        assert window.pieces == (Piece(0, round(10.08 * SAMPLE_RATE), 0),)
    spoken = [(region.start / SAMPLE_RATE, region.end / SAMPLE_RATE) for region in window.speech]
    assert spoken == [pytest.approx((0, 4.8)), pytest.approx((5.28, 10.08))]


def test_speech_without_a_pause_is_split_in_its_dip():
    probabilities = np.full(1250, 0.9)  # 40 s
    probabilities[800] = 0.6
    first, second = cut(probabilities)
    assert first.pieces[0].end == second.pieces[0].start == 800 * FRAME + FRAME // 2
    assert second.pieces[-1].end == 1250 * FRAME


def test_without_a_vad_all_audio_is_cut_every_30_s():
    audio = recording(70 * SAMPLE_RATE)
    windows = Windows(np.split(audio, [5, 1_000_000]), None, WindowSettings())
    found = list(windows)
    assert [window.duration_s for window in found] == [30, 30, 10]
    assert np.array_equal(np.concatenate([window.audio for window in found]), audio)
    assert [window.place(1.0) for window in found] == [1, 31, 61]
    assert windows.num_samples == windows.speech_samples == len(audio)


def test_less_than_whisper_hears_is_padded_with_zeros():
    audio = recording(30 * SAMPLE_RATE + 10)
    _, last = Windows([audio], None, WindowSettings())
    assert last.pieces == (Piece(30 * SAMPLE_RATE, len(audio), 0),)
    assert np.array_equal(last.audio, np.pad(audio[-10:], (0, SHORTEST - 10)))
    assert last.place(0.1) == len(audio) / SAMPLE_RATE


# Times of a window in the recording.

TWO = Window(
    (Piece(16_000, 32_000, 0), Piece(160_000, 192_000, 16_000)), np.zeros(48_000, np.float32)
)


@pytest.mark.parametrize(
    ("in_window", "in_recording", "piece"),
    [
        (0, 1, 0),
        (0.25, 1.25, 0),
        (0.99, 1.99, 0),
        (1, 10, 1),
        (sum([0.1] * 10), 10, 1),  # a rounding error below 1
        (2.5, 11.5, 1),
        (3, 12, 1),
        (9, 12, 1),
        (-1, 1, 0),
    ],
)
def test_times_go_back_to_their_piece_of_the_recording(in_window, in_recording, piece):
    assert TWO.place(in_window) == pytest.approx(in_recording)
    assert TWO.piece_of(in_window) == piece


@given(runs, options)
@settings(deadline=None, max_examples=100)
def test_every_sample_is_placed_where_it_was(probabilities, options):
    for window in cut(probabilities, **options):
        for piece in window.pieces:
            for sample in {piece.start, (piece.start + piece.end) // 2, piece.end - 1}:
                in_window = (piece.at + sample - piece.start) / SAMPLE_RATE
                assert window.place(in_window) * SAMPLE_RATE == pytest.approx(sample)
                assert window.pieces[window.piece_of(in_window)] == piece


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_s": 31}, "max_s=31 is out of bounds; give 1 to 30 s"),
        ({"max_s": 0.5}, "max_s=0.5"),
        ({"max_gap_s": -1}, "max_gap_s=-1 is out of bounds; give 0 to inf s"),
        ({"threshold": 1}, "threshold=1"),
        ({"threshold": 0}, "threshold=0"),
        ({"max_s": 5, "pad_s": 6}, "pad_s=6 is out of bounds; give 0 to 5 s"),
        ({"join_gap_s": float("nan")}, "join_gap_s=nan"),
        ({"min_speech_s": -0.1}, "min_speech_s=-0.1"),
        ({"min_silence_s": 40}, "min_silence_s=40"),
        ({"break_from_s": 31}, "break_from_s=31 is out of bounds; give 0 to 30 s"),
        ({"break_from_s": -1}, "break_from_s=-1"),
    ],
)
def test_settings_out_of_bounds_are_the_users_error(options, message):
    with pytest.raises(DasError, match=message):
        WindowSettings(**options)


def test_a_part_of_a_window_holds_its_part_of_the_pieces():
    whole = seconds_of(2, 3, 4)
    part = whole.part(1.5, 5.5)
    starts = [piece.start for piece in whole.pieces]
    assert part.pieces == (
        Piece(starts[0] + 24_000, starts[0] + 32_000, 0),
        Piece(starts[1], starts[1] + 48_000, 8_000),
        Piece(starts[2], starts[2] + 8_000, 56_000),
    )
    assert np.array_equal(part.audio, whole.audio[24_000:88_000])
