"""Models that share an encoder; modes beyond the paper: a shorter window, a second look."""

import pytest
import torch
from adml_helpers import clips, random_adapter

from das_lib.adml import Adml, Fallback, Fixed, Transcriber
from das_lib.adml.checkpoint import read_checkpoint, write_checkpoint
from das_lib.adml.fallback import Sampled
from das_lib.adml.scores import Scores
from das_lib.doubt import compression_ratio
from das_lib.errors import DasError, ModelError
from das_lib.testing import tiny_whisper


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A tiny model that hears 30 s, and an adapter for it."""
    folder = tmp_path_factory.mktemp("long")
    tiny = tiny_whisper(folder / "tiny", chunk_s=30)
    return tiny, {"a": random_adapter(folder / "a", tiny, seed=1)}


def load(model, **options):
    folder, adapters = model
    return Transcriber.from_pretrained(
        folder, adapters, language="en", max_new_tokens=20, **options
    )


def test_the_window_follows_the_longest_clip_and_ends_at_30_seconds(long):
    audio = clips(2, longest=14 * 16_000)
    seconds = max(len(clip) for clip in audio) / 16_000
    near = load(long, margin_s=1.0).features(audio)
    assert near.shape[-1] % 2 == 0
    assert near.shape[-1] / 100 == pytest.approx(seconds + 1, abs=0.02)
    assert load(long, margin_s=1.0).features(clips(1)).shape[-1] == 1000
    assert load(long, margin_s=60.0).features(audio).shape[-1] == 3000
    whole = load(long).features(audio)
    assert whole.shape[-1] == 3000
    assert torch.equal(whole[..., : near.shape[-1]], near)


def test_a_shorter_window_decodes_and_the_whole_one_is_the_default(long):
    audio = clips(3)
    exact = load(long).transcribe(audio, {"das": Adml()})
    as_wide = load(long, margin_s=30.0).transcribe(audio, {"das": Adml()})
    assert [r["das"].tokens for r in as_wide] == [r["das"].tokens for r in exact]
    short = load(long, margin_s=0.0).transcribe(audio, {"das": Adml()})
    assert all(row["das"].tokens for row in short)


def test_only_doubtful_transcripts_are_sampled_and_the_same_seed_gives_the_same(long):
    audio = clips(6)
    greedy = [row["das"] for row in load(long).transcribe(audio, {"das": Adml()})]
    middle = sorted(result.avg_logprob for result in greedy)[3]
    options = {"max_compression_ratio": 100.0, "min_avg_logprob": middle}
    again = [
        [
            row["das"]
            for row in load(long, fallback=Fallback(**options)).transcribe(audio, {"das": Adml()})
        ]
        for _ in range(2)
    ]
    assert [r.tokens for r in again[0]] == [r.tokens for r in again[1]]
    for before, after in zip(greedy, again[0], strict=True):
        if before.avg_logprob >= middle:
            assert (after.tokens, after.temperature) == (before.tokens, 0.0)
        else:
            assert after.temperature > 0
            assert after.avg_logprob >= middle or after.temperature == 1.0


def test_a_transcript_that_repeats_itself_is_doubtful():
    assert compression_ratio("so it goes. " * 30) > 2.4
    assert compression_ratio("What group was Stevie Nicks a part of before Fleetwood Mac?") < 2.4
    assert compression_ratio("") == 1.0


def test_a_sample_follows_the_branch_that_the_rule_chooses():
    logits = torch.full((1, 2, 4), -20.0)
    logits[0, 0, 0], logits[0, 1, 1], logits[0, 1, 2] = 0.0, 3.0, 3.0
    scores = Scores.of([logits])
    generator = torch.Generator().manual_seed(0)
    chosen = [Sampled(Fixed(0), 1.0, generator).choose(scores) for _ in range(20)]
    assert {c.token_B.item() for c in chosen} == {0}
    other = Scores.of([logits[:, 1:]])
    drawn = [Sampled(Fixed(0), 1.0, generator).choose(other) for _ in range(40)]
    assert {c.token_B.item() for c in drawn} == {1, 2}
    assert drawn[0].logprob_B.exp().item() == pytest.approx(0.5, abs=1e-3)


def test_models_beside_decode_what_the_one_encoder_says(long, tmp_path):
    folder, _ = long
    other = tiny_whisper(tmp_path / "other", chunk_s=30, seed=2)
    with pytest.raises(ModelError, match=r"other has another encoder than .*tiny; load it as"):
        load(long).engine.with_decoder(other)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    weights = {n: t for n, t in read_checkpoint(folder).tensors.items() if n.startswith("encoder.")}
    write_checkpoint(other, {**read_checkpoint(other).tensors, **weights}, mixed)
    changed = {"c": random_adapter(tmp_path / "c", folder, seed=3)}
    audio, strategies = clips(3), {"das": Adml(), "mixed": Fixed(0), "c": Fixed(1)}
    together = load(long)
    together.beside["mixed"] = together.engine.with_decoder(mixed)
    together.beside["c"] = together.engine.with_decoder(folder, changed)
    rows = together.transcribe(audio, strategies)
    alone = {"das": long, "mixed": (mixed, {}), "c": (folder, changed)}
    for name, model in alone.items():
        expected = load(model).transcribe(audio, {name: strategies[name]})
        assert [r[name].tokens for r in rows] == [r[name].tokens for r in expected]
    assert len({tuple(rows[0][name].tokens) for name in alone}) == 3


def spans(result):
    return [(word.text, word.start_s, word.end_s) for word in result.words]


def test_each_clip_says_whether_its_words_have_times(long):
    audio = clips(6, longest=14 * 16_000)
    wanted = [True, False, False, True, True, False]
    adml = {"das": Adml()}
    transcriber = load(long)
    timed = [row["das"] for row in load(long, word_times=True).transcribe(audio, adml)]
    plain = [row["das"] for row in transcriber.transcribe(audio, adml)]
    # In batches of two, in the order of their lengths: each must still get its own.
    mixed = transcriber.transcribe(audio, adml, batch_size=2, word_times=wanted)
    assert [spans(row["das"]) for row in mixed] == [
        spans((timed if times else plain)[i]) for i, times in enumerate(wanted)
    ]
    assert all(word.start_s is None for result in plain for word in result.words)
    assert len({word.end_s for result in timed for word in result.words}) >= 6
    untimed = load(long, word_times=True).transcribe(audio, adml, word_times=[False] * 6)
    assert [spans(row["das"]) for row in untimed] == [spans(result) for result in plain]


def test_clips_with_a_window_of_their_own_are_decoded_together(long, monkeypatch):
    audio, adml = clips(6, longest=14 * 16_000), {"das": Adml()}
    transcriber = load(long)
    whole = transcriber.transcribe(audio, adml)
    short = transcriber.transcribe(audio, adml, windows_s=[15.0] * 6, batch_size=1)
    assert [row["das"].logprob for row in short] != [row["das"].logprob for row in whole]
    shapes, encode = [], transcriber.engine.encode
    monkeypatch.setattr(transcriber.engine, "encode", lambda x: shapes.append(x.shape) or encode(x))
    windows = [None, 15.0, None, 15.0, 15.0, None]
    for i, row in enumerate(transcriber.transcribe(audio, adml, windows_s=windows)):
        # Whoever shares the batch, it is the same.
        expected = (whole if windows[i] is None else short)[i]["das"].logprob
        assert row["das"].logprob == pytest.approx(expected, rel=1e-4)
    assert [(shape[0], shape[2]) for shape in shapes] == [(3, 3000), (3, 1500)]
    [rejected] = transcriber.transcribe([clips(1, longest=14 * 16_000)[0]], adml, windows_s=[0.5])
    assert (rejected.reason, rejected.detail[-22:]) == ("too-long", "0.5 s are read; cut it")


def test_only_unlikely_transcripts_say_whether_there_is_speech(long, monkeypatch):
    audio, adml = clips(6), {"das": Adml()}
    transcriber = load(long)
    # A random model is never sure: all it says is below openai/whisper's bound.
    always = [row["das"] for row in transcriber.transcribe(audio, adml)]
    assert all(result.avg_logprob < -1 for result in always)
    engine = transcriber.engine
    memory = engine.memory(engine.encode(transcriber.features(audio)))
    asked = engine.no_speech(memory, range(6))
    assert [result.no_speech_prob for result in always] == pytest.approx(asked, rel=1e-4)
    middle = sorted(result.avg_logprob for result in always)[3]
    monkeypatch.setattr("das_lib.adml.transcriber.MIN_AVG_LOGPROB", middle)
    some = [row["das"] for row in transcriber.transcribe(audio, adml)]
    assert [result.no_speech_prob for result in some] == [
        pytest.approx(p, rel=1e-4) if result.avg_logprob < middle else None
        for result, p in zip(always, asked, strict=True)
    ]


def test_a_second_look_says_too_whether_there_is_speech(long):
    fallback = Fallback(temperatures=(0.2,), min_avg_logprob=-0.1)
    results = load(long, fallback=fallback).transcribe(clips(3), {"das": Adml()})
    assert all(row["das"].temperature == 0.2 for row in results)
    assert all(
        (row["das"].no_speech_prob is not None) == (row["das"].avg_logprob < -1) for row in results
    )


@pytest.mark.parametrize("temperatures", [(), (0.0, 0.2)])
def test_a_fall_back_without_a_temperature_above_0_is_refused(temperatures):
    with pytest.raises(DasError, match=r"temperatures is .* above 0"):
        Fallback(temperatures=temperatures)


def test_a_negative_margin_is_refused(long):
    with pytest.raises(DasError, match=r"margin_s is -1\.0"):
        load(long, margin_s=-1.0)
