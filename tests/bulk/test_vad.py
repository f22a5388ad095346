import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.vad import FRAME, QUIET, SECOND, SPOKEN, Gain, Region, Regions, Vad
from das_lib.errors import ModelError
from das_lib.speech.audio import SAMPLE_RATE, read_audio

LIBRIVOX = Path(__file__).parents[2] / "data" / "eval" / "librivox" / "audio"
SPEECH, SILENCE = 0.9, 0.1


@pytest.fixture(scope="module")
def vad():
    return Vad.from_package()


@pytest.fixture
def unlifted(monkeypatch):
    monkeypatch.setattr("das_lib.bulk.vad.LIFT", 1.0)


def murmur(seconds=5, seed=0):
    """Noise whose loudness and colour change, so that probabilities do too."""
    rng = np.random.default_rng(seed)
    noise = np.cumsum(rng.standard_normal(int(seconds * SAMPLE_RATE))) / 200
    swing = np.abs(np.sin(np.arange(len(noise)) * 12 / SAMPLE_RATE))
    return (np.sin(noise) * swing * 0.3).astype(np.float32)


def test_probabilities_are_those_of_silero(vad, unlifted):
    audio = murmur()
    stream = vad.stream()
    heard = np.concatenate([stream.feed(audio), stream.finish()])
    assert heard.shape == (-(-len(audio) // FRAME),)
    assert np.array_equal(heard, silero(audio))
    assert len(np.unique(heard)) > 100


def talk(level=1.0, pause_s=3.0):
    """Real speech at a level, and silence behind it."""
    voice = read_audio(next(iter(sorted(LIBRIVOX.glob("*.flac")))))[: 4 * SAMPLE_RATE]
    silence = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    return np.concatenate([voice * np.float32(level / np.abs(voice).max()), silence])


def silero(audio):
    """Probabilities of the package's own code, which remembers all that it heard."""
    from silero_vad import load_silero_vad

    return np.asarray(load_silero_vad(sequence=True).audio_forward(audio))


def test_a_quiet_second_behind_speech_makes_it_listen_anew(vad, unlifted):
    audio = np.concatenate([talk(), talk(level=0.02), talk(level=0.5)])
    heard, all_remembered = vad.stream().feed(audio), silero(audio)
    whole = heard[: len(heard) // SECOND * SECOND].reshape(-1, SECOND).max(1)
    spoken = int(np.argmax(whole >= SPOKEN))
    anew = SECOND * (1 + spoken + int(np.argmax(whole[spoken:] < QUIET)))
    assert 4 * SAMPLE_RATE < anew * FRAME < 7 * SAMPLE_RATE
    assert np.array_equal(heard[:anew], all_remembered[:anew])
    assert not np.array_equal(heard[anew : anew + SECOND], all_remembered[anew : anew + SECOND])
    assert np.array_equal(heard[anew:], vad.stream().feed(audio[anew * FRAME :]))


def test_quiet_speech_right_behind_loud_speech_is_heard(vad):
    audio = np.concatenate([talk(pause_s=0.3), talk(pause_s=0.3), talk(level=0.01, pause_s=1)])
    first = round(2 * 4.3 * SAMPLE_RATE) // FRAME
    assert np.mean(vad.stream().feed(audio)[first:] >= SPOKEN) > 0.5
    assert np.mean(silero(audio)[first:] >= SPOKEN) < 0.1


def test_what_is_as_loud_as_speech_is_left_as_it_is(vad):
    t = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    loud = (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    assert np.array_equal(vad.stream().feed(loud), silero(loud)[: len(loud) // FRAME])


@pytest.mark.parametrize(("quiet", "lifted"), [(0.2, 1), (0.1, 1), (0.05, 2), (0, 10)])
def test_quiet_sound_is_lifted_to_the_loudness_of_speech_by_20_decibels_at_most(quiet, lifted):
    frames = np.full((3, FRAME), quiet, np.float32)
    frames[:, ::2] *= -1
    assert Gain().of(frames) == pytest.approx(lifted)


def test_a_loud_sound_is_forgotten_by_10_decibels_a_second():
    frames = np.zeros((3 * SECOND, FRAME), np.float32)
    frames[0] = 0.1
    decibels = 20 * np.log10(Gain().of(frames))
    assert decibels[0] == 0
    assert np.diff(decibels)[: 2 * SECOND - 2] == pytest.approx(0.32, abs=0.01)
    assert decibels[-1] == pytest.approx(20)


def test_music_without_a_voice_is_never_listened_to_anew(vad, unlifted):
    """A fresh network takes the first note that it hears for a voice, now and then."""
    t = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    pitch = 220 * 2 ** (np.floor(4 * t) % 12 / 12)
    notes = np.sin(2 * np.pi * pitch * t) * np.exp(-3 * (t % 0.25))
    audio = (0.03 * notes).astype(np.float32)
    heard = vad.stream().feed(audio)
    assert np.array_equal(heard, silero(audio)[: len(heard)])
    assert heard.max() < SPOKEN


@pytest.mark.parametrize("audio", [murmur(seconds=1), talk()], ids=["murmur", "talk"])
@given(cuts=st.lists(st.integers(0, 7 * SAMPLE_RATE), max_size=8), rest=st.integers(0, 600))
@settings(deadline=None, max_examples=30)
def test_any_blocks_give_the_same_probabilities(vad, audio, cuts, rest):
    audio = audio[: len(audio) - rest]
    whole, stream = vad.stream(), vad.stream()
    expected = np.concatenate([whole.feed(audio), whole.finish()])
    blocks = np.split(audio, sorted(min(cut, len(audio)) for cut in cuts))
    heard = [*(stream.feed(block) for block in blocks), stream.finish()]
    assert np.array_equal(np.concatenate(heard), expected)
    assert all(
        sum(map(len, heard[: i + 1])) == sum(map(len, blocks[: i + 1])) // FRAME
        for i in range(len(blocks))
    )


def test_a_long_block_is_heard_as_its_parts_are(vad):
    audio = murmur(seconds=40)
    whole, stream = vad.stream(), vad.stream()
    parts = [stream.feed(part) for part in np.split(audio, 10)]
    assert np.array_equal(whole.feed(audio), np.concatenate(parts))


def test_a_recording_of_whole_frames_has_no_last_frame_to_pad(vad):
    stream = vad.stream()
    assert stream.feed(murmur()[: 3 * FRAME]).shape == (3,)
    assert stream.finish().shape == (0,)


def test_streams_do_not_disturb_each_other(vad):
    one, other, alone = vad.stream(), vad.stream(), vad.stream()
    heard = []
    for block in np.split(murmur(), 5):
        heard.append(one.feed(block))
        other.feed(block[::-1])
    assert np.array_equal(np.concatenate(heard), alone.feed(murmur()))


def test_a_package_without_the_network_is_a_users_error(tmp_path, monkeypatch):
    (tmp_path / "silero_vad").mkdir()
    (tmp_path / "silero_vad" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="install the package silero-vad"):
        Vad.from_package()


def regions_of(probabilities, num_samples=None, splits=(), **options):
    """One call of `Regions.feed` per part of ``probabilities``."""
    options = {
        "threshold": 0.5,
        "min_speech_s": 0.1,
        "min_silence_s": 0.3,
        "pad_s": 0.0,
        **options,
    }
    regions = Regions(**options)
    found = []
    for part in np.split(np.asarray(probabilities, np.float32), sorted(splits)):
        found.extend(regions.feed(part))
    found.extend(regions.finish(len(probabilities) * FRAME if num_samples is None else num_samples))
    return found


def runs(least=1, most=40):
    """Probabilities of frames: runs of speech, silence and what is between, in any order."""
    probability = st.sampled_from([0.0, 0.005, SILENCE, 0.34, 0.36, 0.45, 0.5, SPEECH, 1.0])
    run = st.tuples(st.one_of(probability, st.floats(0, 1, width=32)), st.integers(1, 25))
    return st.lists(run, min_size=least, max_size=most).map(
        lambda parts: np.concatenate([np.full(n, p, np.float32) for p, n in parts])
    )


options = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0.1, 0.35, 0.5, 0.8]),
        "min_speech_s": st.sampled_from([0.0, 0.064, 0.1, 0.25]),
        "min_silence_s": st.sampled_from([0.0, 0.03, 0.1, 0.3]),
        "pad_s": st.sampled_from([0.0, 0.01, 0.03, 0.2, 0.5]),
    }
)


@given(runs(), options, st.integers(1, FRAME))
@settings(deadline=None, max_examples=400)
def test_regions_are_those_of_silero(probabilities, options, last):
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    num_samples = (len(probabilities) - 1) * FRAME + last
    expected = get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=options["threshold"],
        min_speech_duration_ms=1000 * options["min_speech_s"],
        min_silence_duration_ms=1000 * options["min_silence_s"],
        speech_pad_ms=1000 * options["pad_s"],
        audio_length_samples=num_samples,
    )
    found = regions_of(probabilities, num_samples, **options)
    assert found == [Region(region["start"], region["end"]) for region in expected]


@given(runs(), options, st.sampled_from([None, 1.0, 2.5]), st.data())
@settings(deadline=None, max_examples=200)
def test_any_blocks_give_the_same_regions(probabilities, options, max_s, data):
    cuts = data.draw(st.lists(st.integers(0, len(probabilities)), max_size=10))
    options = {**options, "max_s": max_s}
    assert regions_of(probabilities, splits=cuts, **options) == regions_of(probabilities, **options)


@given(runs(), options, st.integers(1, FRAME))
@settings(deadline=None, max_examples=200)
def test_a_longest_region_loses_no_speech_and_adds_none(probabilities, options, last):
    num_samples = (len(probabilities) - 1) * FRAME + last
    found = regions_of(probabilities, num_samples, max_s=1.0, **options)
    whole = regions_of(probabilities, num_samples, **options)
    speech = regions_of(probabilities, num_samples, **{**options, "pad_s": 0.0})
    assert all(0 < region.end - region.start <= SAMPLE_RATE for region in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    covered = mask(found, num_samples)
    assert not (mask(speech, num_samples) & ~covered).any()
    assert not (covered & ~mask(whole, num_samples)).any()


@given(runs(), options, st.sampled_from([None, 1.0]))
@settings(deadline=None, max_examples=50)
def test_no_later_region_begins_before_what_is_settled(probabilities, options, max_s):
    regions, settled = Regions(**options, max_s=max_s), 0
    for frame in range(len(probabilities)):
        found = list(regions.feed(probabilities[frame : frame + 1]))
        assert all(region.start >= settled for region in found)
        assert settled <= regions.settled <= (frame + 1) * FRAME
        settled = regions.settled
    assert all(region.start >= settled for region in regions.finish(len(probabilities) * FRAME))


def mask(regions, num_samples):
    covered = np.zeros(num_samples, bool)
    for region in regions:
        assert 0 <= region.start < region.end <= num_samples
        assert not covered[region.start : region.end].any()
        covered[region.start : region.end] = True
    return covered


def test_a_long_region_is_split_where_speech_is_least_likely():
    probabilities = np.full(1250, SPEECH)  # 40 s
    probabilities[[100, 450, 938]] = 0.5  # lower, but not between 15 s and 30 s
    probabilities[700] = 0.6
    first, second = regions_of(probabilities, max_s=30.0)
    assert (first.start, second.end) == (0, 1250 * FRAME)
    assert first.end == second.start == 700 * FRAME + FRAME // 2


def test_even_speech_is_split_as_late_as_possible():
    first, second = regions_of(np.full(1250, SPEECH), max_s=30.0)
    assert first.end == second.start
    assert 30 * SAMPLE_RATE - FRAME < first.end <= 30 * SAMPLE_RATE


def test_what_the_last_frame_is_padded_with_is_no_speech():
    assert regions_of(np.full(4, SPEECH), 3 * FRAME + 1) == []  # 0.096 s
    assert regions_of(np.full(4, SPEECH), 3 * FRAME + 65) == [Region(0, 3 * FRAME + 65)]
    longest = 30 * SAMPLE_RATE  # ends within frame 937
    assert regions_of(np.full(938, SPEECH), longest, max_s=30.0) == [Region(0, longest)]
    assert len(regions_of(np.full(938, SPEECH), longest + 1, max_s=30.0)) == 2


def test_padding_gives_way_before_a_region_is_split():
    speech = np.full(930, SPEECH)  # 29.76 s
    silence = np.full(100, SILENCE)
    (region,) = regions_of(np.concatenate([silence, speech, silence]), pad_s=0.2, max_s=30.0)
    assert region.start == 100 * FRAME - round(0.2 * SAMPLE_RATE)
    assert region.end - region.start == 30 * SAMPLE_RATE
