"""The form for a GPU, whose arithmetic is the same on a CPU: tokens as those of the stepwise loop.

Recording itself needs a GPU: there, `das bench parity --device cuda` compares it with the stock
models.
"""

import numpy as np
import pytest
import torch
from adml_helpers import ALL_SITES, clips, pissa_adapter, random_adapter
from transformers import WhisperFeatureExtractor

from das_lib.adml import Adml, Fallback, Fixed, Mean, Transcriber
from das_lib.adml.gpu.mel import LogMel
from das_lib.adml.gpu.record import Recorded, filled
from das_lib.adml.gpu.replay import Replays
from das_lib.adml.norm import add_norm, layer_norm
from das_lib.adml.select import Majority

CPU = torch.device("cpu")


def same(engine, audio, strategy):
    """Both forms decode; the transcripts, after checking that they agree."""
    memory = engine.engine.memory(engine.engine.encode(engine.features(audio)))
    languages = engine.engine.languages(memory)
    want = engine.engine.decode(memory, languages, strategy)
    columns = strategy.needs(tuple(range(len(engine.bank.names))))
    replays = Replays(engine.engine, engine.engine._model)
    for _ in range(2):  # the second time from what is recorded
        got = replays.decode(memory.h_BSD, languages, strategy, columns)
        for one, other in zip(got, want, strict=True):
            assert one.tokens == other.tokens
            assert (one.branch, one.rule) == (other.branch, other.rule)
            np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4)
            np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-3)
    return replays, want


@pytest.mark.parametrize("strategy", [Adml(), Adml(tau=0.2), Fixed(1), Mean(), Majority()])
@pytest.mark.parametrize("count", [1, 3])
def test_both_forms_choose_the_same_tokens(base, tmp_path, strategy, count):
    adapters = {f"a{i}": random_adapter(tmp_path / f"a{i}", base, seed=i) for i in range(2)}
    engine = Transcriber.from_pretrained(base, adapters, max_new_tokens=20)
    _, traces = same(engine, clips(count), strategy)
    assert max(len(t.tokens) for t in traces) > 2


def test_any_projection_may_change_also_the_keys(base, tmp_path):
    adapters = {
        "all": random_adapter(tmp_path / "all", base, seed=1, target_modules=ALL_SITES),
        "qv": random_adapter(tmp_path / "qv", base, seed=2),
        "pissa": pissa_adapter(tmp_path / "pissa", base, seed=3)[0],
    }
    engine = Transcriber.from_pretrained(base, adapters, language="en", max_new_tokens=20)
    same(engine, clips(3), Adml())


def test_the_base_alone_decodes(base):
    engine = Transcriber.from_pretrained(base, language="en", max_new_tokens=20)
    same(engine, clips(2), Adml())


def test_adapters_come_and_go_between_two_decodes(base, tmp_path):
    engine = Transcriber.from_pretrained(base, language="en", max_new_tokens=8)
    replays, _ = same(engine, clips(2), Adml())
    engine.bank.add("a", random_adapter(tmp_path / "a", base, seed=1))
    memory = engine.engine.memory(engine.engine.encode(engine.features(clips(2))))
    got = replays.decode(memory.h_BSD, ["en", "en"], Fixed(1), (1,))
    want = engine.engine.decode(memory, ["en", "en"], Fixed(1))
    assert [t.tokens for t in got] == [t.tokens for t in want]


def test_more_positions_than_the_smallest_room_are_read(base, tmp_path, monkeypatch):
    monkeypatch.setattr("das_lib.adml.gpu.replay.ROOM", 5)
    adapters = {"a": random_adapter(tmp_path / "a", base, seed=1)}
    engine = Transcriber.from_pretrained(base, adapters, language="en", max_new_tokens=30)
    _, traces = same(engine, clips(3), Adml())
    assert max(len(t.tokens) for t in traces) > 10


def test_spectrograms_are_those_of_the_feature_extractor(base):
    extractor = WhisperFeatureExtractor.from_pretrained(base)
    audio = clips(3)
    want = extractor(audio, sampling_rate=16_000, return_tensors="pt").input_features
    log_mel = LogMel(extractor, CPU)
    for _ in range(2):
        torch.testing.assert_close(log_mel(audio), want, atol=1e-4, rtol=1e-4)


def test_what_is_recorded_is_not_overwritten_by_the_next_call():
    double = Recorded(lambda x: 2 * x, CPU)
    one, other = double(torch.ones(3, 2)), double(torch.full((3, 2), 5.0))
    assert one.tolist() == [[2, 2]] * 3
    assert other.tolist() == [[10, 10]] * 3


def test_batches_are_filled_up_to_few_sizes():
    assert [filled(n) for n in (1, 2, 3, 16, 33, 64, 65, 129)] == [1, 2, 4, 16, 64, 64, 128, 192]


def test_a_sum_and_its_norm_carry_the_column_of_ones():
    x, more = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    norm = torch.randn(16), torch.randn(16)
    want = layer_norm(x + more, norm, torch.float32)
    whole = x + more
    got = add_norm(x, more, norm, torch.float32, ones=8)
    torch.testing.assert_close(got[..., :16], want)
    torch.testing.assert_close(x, whole)
    assert got[..., 16:].flatten(0, 1).tolist() == [[1.0] + [0.0] * 7] * 6


def test_a_transcriber_with_replays_gives_the_same_results(base, tmp_path):
    adapters = {"a": random_adapter(tmp_path / "a", base, seed=1)}
    options = {"language": "en", "max_new_tokens": 12, "fallback": Fallback(temperatures=(0.4,))}
    engine = Transcriber.from_pretrained(base, adapters, **options)
    strategies, audio = {"das": Adml(), "base": Fixed(0)}, clips(3)
    want = engine.transcribe(audio, strategies)
    engine.engine._replays = Replays(engine.engine, engine.engine._model)
    replayed = []
    once = engine.engine._replays.decode
    engine.engine._replays.decode = lambda *a: replayed.append(a[2]) or once(*a)
    for one, other in zip(engine.transcribe(audio, strategies), want, strict=True):
        for name in strategies:
            assert one[name].tokens == other[name].tokens
            assert one[name].words == other[name].words
            assert one[name].temperature == other[name].temperature
    assert replayed == list(strategies.values())  # sampled ones are decoded step by step
