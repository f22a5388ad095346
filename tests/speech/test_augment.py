import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from das_lib.config.tree import Augment
from das_lib.ids import utterance_id
from das_lib.speech.audio import MAX_SAMPLES, SAMPLE_RATE, to_flac
from das_lib.speech.augment import (
    Augmenter,
    add_noise,
    babble,
    change_pace,
    perturb,
    pink_noise,
    room_response,
)
from schemas.speech import SPEECH

QUIET = Augment(part=1, pace=(1, 1), rt60_s=None, snr_db=None)


def tone(hertz: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.4 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def speech(clips: dict[str, np.ndarray | bytes]) -> pa.Table:
    common = {"domain": "music", "split": "train", "sample_rate_hz": 16000, "text": "a text"}
    return pa.Table.from_pylist(
        [
            {
                "id": name,
                "audio": clip if isinstance(clip, bytes) else to_flac(clip),
                "num_samples": len(clip),
                "engine": "e",
                "voice": "v",
                **common,
            }
            for name, clip in clips.items()
        ],
        schema=SPEECH,
    )


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    return 10 * np.log10(np.mean(signal**2) / np.mean(noise**2))


def loudest_hertz(clip: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(clip))) * SAMPLE_RATE / len(clip))


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_by_default_nothing_happens():
    table = speech({"a": tone(300, 1)})
    assert Augmenter(Augment(part=0), 0)(table) is table


def test_versions_have_ids_of_their_own_and_are_the_same_in_every_run():
    table = speech({"a": tone(300, 1), "b": tone(500, 2)})
    augmenter = Augmenter(Augment(part=1, versions=3), 0)
    first, again = augmenter(table), augmenter(table)
    assert first["id"].to_pylist() == ["a", "a#1", "a#2", "b", "b#1", "b#2"]
    assert [utterance_id(i) for i in first["id"].to_pylist()] == ["a"] * 3 + ["b"] * 3
    assert first.equals(again)
    assert len(set(first["audio"].to_pylist())) == 6
    assert not Augmenter(Augment(part=1, versions=3), 1)(table).equals(first)
    for audio, length in zip(
        first["audio"].to_pylist(), first["num_samples"].to_pylist(), strict=True
    ):
        assert len(soundfile.read(io.BytesIO(audio))[0]) == length


def test_a_part_stays_clean():
    table = speech({f"r{i}": tone(200 + i, 0.2) for i in range(60)})
    heard = Augmenter(Augment(part=0.5), 0)(table)
    changed = sum(
        a != b for a, b in zip(table["audio"].to_pylist(), heard["audio"].to_pylist(), strict=True)
    )
    assert 15 <= changed <= 45


def test_what_cannot_be_perturbed_stays_as_it_is():
    table = speech({"broken": b"no audio", "long": tone(300, MAX_SAMPLES / SAMPLE_RATE)})
    heard = Augmenter(Augment(part=1, pace=(0.5, 0.5)), 0)(table)
    assert heard["audio"].to_pylist() == table["audio"].to_pylist()


def test_a_faster_pace_is_shorter_and_higher():
    clip = change_pace(tone(400, 2), 1.25)
    assert len(clip) == pytest.approx(2 * SAMPLE_RATE / 1.25, abs=2)
    assert loudest_hertz(clip) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("snr_db", [0, 10])
def test_noise_has_the_level_that_is_asked_for(rng, snr_db):
    clip, noise = tone(300, 1), pink_noise(SAMPLE_RATE, rng)
    heard = add_noise(clip, noise, snr_db)
    assert decibels(clip, heard - clip) == pytest.approx(snr_db, abs=0.01)


def test_pink_noise_loses_3_db_an_octave(rng):
    power = np.abs(np.fft.rfft(pink_noise(20 * SAMPLE_RATE, rng))) ** 2
    hertz = np.fft.rfftfreq(20 * SAMPLE_RATE, 1 / SAMPLE_RATE)
    low, high = (power[(hertz > f) & (hertz < 1.1 * f)].mean() for f in (500, 1000))
    assert 10 * np.log10(low / high) == pytest.approx(3, abs=0.5)


def test_a_rooms_echo_fades_by_60_db(rng):
    response = room_response(0.5, 3, rng)
    assert response[0] == 1
    assert 10 * np.log10(1 / np.sum(response[1:] ** 2)) == pytest.approx(3, abs=0.01)
    start, end = response[1:801], response[-800:]
    assert decibels(start, end) == pytest.approx(60 * 0.45 / 0.5, abs=2)


def test_babble_is_made_of_the_other_recordings(rng):
    noise = babble(4 * SAMPLE_RATE, [tone(400, 1)], rng)
    assert len(noise) == 4 * SAMPLE_RATE
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    voices = (hertz > 0.7 * 400) & (hertz < 1.35 * 400)
    assert power[voices].sum() > 0.95 * power.sum()


def test_without_other_recordings_the_noise_is_pink(rng):
    augment = QUIET.model_copy(update={"snr_db": (5.0, 5.0), "noises": ("babble",)})
    clip = tone(300, 1)
    heard = perturb(clip, [], augment, rng)
    scale = np.dot(heard, clip) / np.dot(clip, clip)  # full scale is kept
    assert decibels(scale * clip, heard - scale * clip) == pytest.approx(5, abs=0.3)
    assert np.abs(heard).max() <= 1


def test_a_perturbation_that_does_nothing_gives_the_recording(rng):
    clip = tone(300, 1)
    assert np.array_equal(perturb(clip, [], QUIET, rng), clip)


def test_a_room_rings_on_after_the_last_word(rng):
    clip = tone(300, 1)
    heard = perturb(clip, [], QUIET.model_copy(update={"rt60_s": (0.5, 0.5)}), rng)
    assert len(heard) == len(clip) + 0.2 * SAMPLE_RATE
    assert 0 < np.mean(heard[-1600:] ** 2) < np.mean(heard[8000:9600] ** 2)


def test_masks_blank_no_more_than_is_asked_for_where_something_is_said():
    masks = {"time_masks": 2, "time_mask_s": 0.3, "mel_masks": 1, "mel_mask_bins": 9}
    augmenter = Augmenter(Augment(part=0, **masks), 0)
    untouched = np.random.default_rng(0).normal(size=(80, 3000)).astype(np.float32)
    masked = []
    for name in ("a", "b", "a"):
        mel = untouched.copy()
        augmenter.mask(mel, name, 2.0)
        masked.append(mel)
    blank = masked[0] != untouched
    assert np.array_equal(masked[0], masked[2])
    assert not np.array_equal(masked[0], masked[1])
    assert blank.any()
    assert not blank[:, 200:].any(), "behind the speech"
    assert blank[:, :200].all(axis=0).sum() <= 60
    assert blank[:, :200].all(axis=1).sum() <= 9
    rest = ~blank[:, :200].all(axis=0)[None] & ~blank[:, :200].all(axis=1)[:, None]
    assert not blank[:, :200][rest].any(), "only whole stretches and bands"


def test_masks_leave_the_recordings_themselves_alone():
    table = speech({"a": tone(300, 1)})
    assert Augmenter(Augment(part=0, time_masks=2), 0)(table) is table
