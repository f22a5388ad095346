"""Beam search against one that keeps nothing but texts and runs every model in full."""

import pytest
import torch
from adml_helpers import Loop, clips, prompt, random_adapter

from das_lib.adml import Adml, Fallback, Fixed, Majority, MaxConfidence, Mean, Transcriber
from das_lib.adml.beam import decode_with_beams
from das_lib.errors import DasError

LIMIT = 6


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("adapters")
    return {f"a{i}": random_adapter(folder / f"a{i}", base, seed=i) for i in (1, 2)}


def load(base, adapters, **options):
    return Transcriber.from_pretrained(
        base, adapters, language="en", max_new_tokens=LIMIT, **options
    )


@torch.inference_mode()
def slow_beams(loop, mel, *, tau, beams):
    """Beam search over equation 3: lists of (log-probability, tokens), no cache, no batch."""
    g = loop.models[0].generation_config
    encoded = loop.models[0].model.encoder(mel.unsqueeze(0))
    start = prompt(loop.models[0])
    live, ended = [(0.0, [])], []
    for step in range(LIMIT):
        grown = []
        for score, tokens in live:
            rows = []
            for model in loop.models:
                ids = torch.tensor([start + tokens])
                out = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False)
                logits = out.logits[0, -1]
                logits[g.suppress_tokens] = -torch.inf
                if not step:
                    logits[g.begin_suppress_tokens] = -torch.inf
                rows.append(logits.log_softmax(-1))
            c = [row.max().exp().item() for row in rows]
            branch = 0
            if max(c) - c[0] >= tau:
                branch = c.index(max(c))
            elif min(c) - c[0] <= -tau:
                branch = c.index(min(c))
            logprobs = rows[branch].tolist()
            grown += [(score + p, [*tokens, i]) for i, p in enumerate(logprobs)]
        live = []
        for score, tokens in sorted(grown, reverse=True):
            (ended if tokens[-1] == g.eos_token_id else live).append((score, tokens))
            if len(live) == beams:
                break
        if len(ended) >= beams:
            break
    return max(ended or live, key=lambda one: one[0] / len(one[1]))


@pytest.mark.parametrize("beams", [2, 3])
def test_beams_end_in_the_transcripts_of_a_search_without_cache(base, adapters, beams):
    engine, loop = load(base, adapters, beams=beams), Loop(base, list(adapters.values()))
    audio = clips(5)
    rows = engine.transcribe(audio, {"das": Adml()})
    wanted = [slow_beams(loop, mel, tau=0.025, beams=beams) for mel in engine.features(audio)]
    assert [row["das"].tokens for row in rows] == [tokens for _, tokens in wanted]
    for row, (score, _) in zip(rows, wanted, strict=True):
        assert sum(row["das"].logprob) == pytest.approx(score, abs=1e-3)
        assert len(row["das"].branch) == len(row["das"].rule) == len(row["das"].tokens)
    greedy = load(base, adapters).transcribe(audio, {"das": Adml()})
    assert [r["das"].tokens for r in rows] != [r["das"].tokens for r in greedy]


@pytest.mark.parametrize("strategy", [Adml(), Fixed(1), MaxConfidence(), Majority()])
def test_one_beam_is_the_greedy_decode(base, adapters, strategy):
    transcriber = load(base, adapters)
    engine = transcriber.engine
    memory = engine.memory(engine.encode(transcriber.features(clips(4))))
    languages = engine.languages(memory)
    columns = strategy.needs((0, 1, 2))
    one = decode_with_beams(engine, memory, languages, strategy, columns, rows=None, beams=1)
    greedy = engine.decode(memory, languages, strategy)
    assert [trace.tokens for trace in one] == [trace.tokens for trace in greedy]
    assert [trace.branch for trace in one] == [trace.branch for trace in greedy]


def test_a_second_look_is_sampled_without_beams(base, adapters):
    every = Fallback(min_avg_logprob=0.0, temperatures=(1.0,))
    one, two = (
        load(base, adapters, beams=beams, fallback=every).transcribe(clips(3), {"das": Adml()})
        for beams in (1, 2)
    )
    assert [row["das"].tokens for row in one] == [row["das"].tokens for row in two]
    assert {row["das"].temperature for row in two} == {1.0}


def test_what_beams_cannot_do_is_refused(base, adapters):
    with pytest.raises(DasError, match="beams is 0, it must be at least 1"):
        load(base, adapters, beams=0)
    with pytest.raises(DasError, match="lookahead is 4 and beams is 2"):
        load(base, adapters, beams=2, lookahead=4)
    with pytest.raises(DasError, match="with a mean of branches it must be 1"):
        load(base, adapters, beams=2).transcribe(clips(1), {"mean": Mean()})
