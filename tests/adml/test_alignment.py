"""Word times: the attention that is read, the path through it, and real speech."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from adml_helpers import clips, pissa_adapter, prompt, read_set
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from das_lib.adml import Adml, Fixed, Transcriber
from das_lib.adml.alignment import Seen, alignment_heads, median, token_frames
from das_lib.adml.fallback import Fallback


def slow_path(cost):
    """Dynamic time warping as it is written: the frame at which each row begins."""
    rows, frames = cost.shape
    total = np.full((rows, frames), np.inf)
    came = np.zeros((rows, frames), dtype=int)
    for r in range(rows):
        for s in range(frames):
            before = (
                total[r - 1, s - 1] if r and s else np.inf,
                total[r - 1, s] if r else np.inf,
                total[r, s - 1] if s else np.inf,
            )
            came[r, s] = int(np.argmin(before))
            total[r, s] = cost[r, s] + (0 if r == s == 0 else min(before))
    path, r, s = [], rows - 1, frames - 1
    while True:
        path.append((r, s))
        if r == s == 0:
            break
        step = came[r, s]
        r, s = r - (step != 2), s - (step != 1)
    return [min(s for row, s in path if row == r) for r in range(rows)]


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 9), (5, 5), (4, 31), (12, 60), (9, 4)])
def test_the_path_is_the_cheapest_monotonic_one(rows, frames):
    cost = np.random.default_rng(rows * frames).normal(size=(rows, frames))
    begin = token_frames(cost)
    assert begin.tolist() == slow_path(cost)
    assert begin[0] == 0


@pytest.mark.parametrize("count", [1, 3, 5, 7, 9])
def test_the_median_is_torchs(count):
    values = torch.randint(0, 5, (count, 2000), generator=torch.Generator().manual_seed(count))
    assert torch.equal(median(list(values)), values.median(0).values)


@torch.inference_mode()
@pytest.mark.parametrize("adapted", [False, True])
def test_the_heads_attend_as_those_of_the_stock_base(tmp_path, base, adapted):
    adapters = {}
    if adapted:  # a bank over the common residual, in which the base has a change of its own
        names = ("a", "b")
        adapters = {
            name: pissa_adapter(tmp_path / name, base, seed=i)[0] for i, name in enumerate(names)
        }
    transcriber = Transcriber.from_pretrained(base, adapters, language="en")
    engine, tokens = transcriber.engine, [40, 50, 60]
    mel = transcriber.features(clips(2))
    memory = engine.memory(engine.encode(mel))
    weights_HTS = engine.read(memory, 1, "en", tokens, 1.0)
    model = WhisperForConditionalGeneration.from_pretrained(base, attn_implementation="eager")
    ids = torch.tensor([prompt(model) + tokens])
    out = model(input_features=mel[1:], decoder_input_ids=ids, output_attentions=True)
    wanted = torch.stack([out.cross_attentions[i][0, h] for i, h in engine.alignment_heads])
    assert wanted.shape == weights_HTS.shape
    torch.testing.assert_close(weights_HTS, wanted, rtol=1e-4, atol=1e-5)
    cut = engine.read(memory, 1, "en", tokens, 0.2)
    torch.testing.assert_close(cut.sum(-1), torch.ones_like(cut[..., 0]))
    assert cut.shape[-1] == 10


@torch.inference_mode()
@pytest.mark.parametrize("strategy", [Fixed(0), Adml(tau=0.01)])
def test_a_decode_sees_what_reading_its_transcript_shows(tmp_path, base, strategy):
    adapters = {
        name: pissa_adapter(tmp_path / name, base, seed=i)[0] for i, name in enumerate("ab")
    }
    transcriber = Transcriber.from_pretrained(base, adapters, language="en", max_new_tokens=20)
    engine = transcriber.engine
    memory = engine.memory(engine.encode(transcriber.features(clips(4))))
    seen = Seen(engine.alignment_heads, {0: 30.0, 2: 0.5})
    traces = engine.decode(memory, ["en"] * 3, strategy, rows=[3, 2, 0], seen=seen)
    for trace, row, seconds in zip(traces[1:], (2, 0), (0.5, 30.0), strict=True):
        fed = trace.tokens[:-1]
        wanted = engine.read(memory, row, "en", fed, seconds)
        torch.testing.assert_close(seen.weights(row), wanted, rtol=1e-3, atol=1e-5)
    assert seen.weights(3) is None
    engine.decode(memory, ["en"], Fixed(1), rows=[2], seen=seen)  # without the base
    assert seen.weights(2) is None
    assert seen.weights(0) is not None


def test_what_is_seen_of_a_batch_is_what_is_seen_one_by_one():
    heads, seconds = [[1, 2], [1, 0], [3, 1]], {4: 0.1, 7: 0.2}
    batch, alone = Seen(heads, seconds), Seen(heads, seconds)
    generator = torch.Generator().manual_seed(3)
    for utterances, length in (([4, 5, 7], 3), ([4, 5, 7], 1), ([7], 1)):
        for layer in range(4):
            s_BHMS = torch.randn(len(utterances), 4, 2 * length, 20, generator=generator)
            batch.look(layer, length, utterances, s_BHMS)
            for u, s_HMS in zip(utterances, s_BHMS, strict=True):
                alone.look(layer, length, [u], s_HMS.unsqueeze(0))
    for u, shape in ((4, (3, 4, 5)), (7, (3, 5, 10))):
        assert batch.weights(u).shape == shape
        assert torch.equal(batch.weights(u), alone.weights(u))
    assert batch.weights(5) is None
    batch.forget([4])
    assert batch.weights(4) is None
    assert torch.equal(batch.weights(7), alone.weights(7))


@pytest.mark.parametrize("fallback", [None, Fallback(temperatures=(1.0,), min_avg_logprob=0.0)])
def test_times_are_those_of_a_second_reading(base, fallback, monkeypatch):
    options = {"language": "en", "max_new_tokens": 30, "fallback": fallback, "word_times": True}
    transcriber = Transcriber.from_pretrained(base, **options)
    seen = transcriber.transcribe(clips(3), {"base": Fixed(0)})
    decode = transcriber.engine.decode
    monkeypatch.setattr(transcriber.engine, "decode", lambda *a, seen, **k: decode(*a, **k))
    read = transcriber.transcribe(clips(3), {"base": Fixed(0)})
    assert [row["base"].words for row in seen] == [row["base"].words for row in read]
    assert any(row["base"].words for row in read)


def test_heads_are_the_named_ones_or_those_of_the_upper_half():
    assert alignment_heads({"alignment_heads": [[1, 2]]}, 6, 8) == [[1, 2]]
    assert alignment_heads({}, 2, 2) == [[1, 0], [1, 1]]


def test_words_have_no_times_unless_asked_for_and_the_text_stays(base):
    audio = clips(3, longest=8000)
    options = {"language": "en", "max_new_tokens": 12}
    plain = Transcriber.from_pretrained(base, **options)
    timed = Transcriber.from_pretrained(base, word_times=True, **options)
    for a, b, clip in zip(
        plain.transcribe(audio, {"base": Fixed(0)}),
        timed.transcribe(audio, {"base": Fixed(0)}),
        audio,
        strict=True,
    ):
        assert a["base"].tokens == b["base"].tokens
        assert all(word.start_s is None and word.end_s is None for word in a["base"].words)
        for word in b["base"].words:
            assert 0 <= word.start_s <= word.end_s <= len(clip) / 16_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_times_follow_the_speech_and_agree_with_transformers(whisper_base, speech):
    audio = read_set(speech / "librispeech_clean", 4)
    timed = Transcriber.from_pretrained(whisper_base, language="en", word_times=True)
    strategy = {"das": Adml()}
    rows = timed.transcribe(audio, strategy)
    silence = np.random.default_rng(0).normal(0, 1e-4, 32_000).astype(np.float32)
    later = timed.transcribe([np.concatenate([silence, clip]) for clip in audio], strategy)

    model = WhisperForConditionalGeneration.from_pretrained(whisper_base).eval()
    processor = WhisperProcessor.from_pretrained(whisper_base)
    shifts, against_stock = [], []
    for clip, row, late in zip(audio, rows, later, strict=True):
        words = row["das"].words
        assert all(a.start_s <= a.end_s == b.start_s for a, b in pairwise(words))
        if row["das"].text == late["das"].text:
            pairs = zip(words, late["das"].words, strict=True)
            shifts += [b.end_s - a.end_s for a, b in pairs][:-1]
        mel = processor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        out = model.generate(
            mel, language="en", return_token_timestamps=True, num_frames=len(clip) // 160
        )
        ids, times = out["sequences"][0].tolist(), out["token_timestamps"][0].tolist()
        # Of each token, the time at which it ends.
        at = ids.index(row["das"].tokens[0])
        against_stock += [abs(word.end_s - times[at + word.end - 1]) for word in words[:-1]]
    assert len(shifts) > 20
    assert np.median(shifts) == pytest.approx(2.0, abs=0.1)
    assert np.median(against_stock) <= 0.06
