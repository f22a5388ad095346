"""The engine against stock transformers and PEFT, on tiny random models."""

import numpy as np
import pytest
import torch
from adml_helpers import ALL_SITES, ATTENTION_QV, Loop, clips, pissa_adapter, prompt, random_adapter
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from das_lib.adml import Adml, Fixed, MaxConfidence, Rule, Transcriber
from das_lib.errors import DasError, ModelError, Reject
from das_lib.testing import tiny_whisper

LIMIT = 12
MIXES = {
    "none": [],
    "one": [{"seed": 1}],
    "equal": [{"seed": 1}, {"seed": 1}, {"seed": 1}],
    "distinct": [{"seed": 1}, {"seed": 2}, {"seed": 3}],
    "all sites": [{"seed": s, "target_modules": ALL_SITES, "size": 0.1} for s in (1, 2)],
    "mixed": [
        {"seed": 1, "r": 2, "lora_alpha": 3.7},
        {"seed": 2, "r": 8, "lora_alpha": 16, "use_rslora": True, "target_modules": ALL_SITES},
        {"seed": 3, "target_modules": r".*decoder.*\.(k_proj|out_proj)", "size": 0.3},
        {"seed": 4, "r": 1, "target_modules": r".*decoder.*\.(fc1|fc2)", "use_rslora": True},
    ],
    "patterns": [
        {
            "seed": 5,
            "target_modules": ATTENTION_QV,
            "rank_pattern": {"encoder_attn.v_proj": 6},
            "alpha_pattern": {"q_proj": 5},
        },
        {"seed": 6, "target_modules": r".*decoder\.layers\.1\.encoder_attn\.k_proj", "size": 2.0},
    ],
    "pissa": [{"seed": s, "pissa": True, "size": 1.0} for s in (1, 2, 3)],
    "pissa and plain": [{"seed": 1, "pissa": True, "size": 1.0}, {"seed": 2}],
}


def make_adapter(folder, base, *, pissa=False, **spec):
    return pissa_adapter(folder, base, **spec)[0] if pissa else random_adapter(folder, base, **spec)


def system(tmp_path, base, mix, **options):
    """The engine and the slow loop over the same adapters."""
    folders = [make_adapter(tmp_path / f"a{i}", base, **spec) for i, spec in enumerate(MIXES[mix])]
    options = {"language": "en", "max_new_tokens": LIMIT, **options}
    named = {f"a{i}": folder for i, folder in enumerate(folders)}
    return Transcriber.from_pretrained(base, named, **options), Loop(base, folders), folders


def decode(transcriber, audio, strategy, **options):
    """Traces of one strategy alone."""
    engine = transcriber.engine
    memory = engine.memory(engine.encode(transcriber.features(audio)))
    return engine.decode(memory, engine.languages(memory), strategy, **options)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("count", [1, 5])
def test_adml_agrees_with_separate_full_passes_token_by_token(tmp_path, base, mix, count):
    engine, loop, _ = system(tmp_path, base, mix)
    audio = clips(count, seed=count)
    got = engine.transcribe(audio, {"das": Adml()})
    mels = engine.features(audio)
    seen = set()
    for mel, row in zip(mels, got, strict=True):
        steps = loop(mel, prompt(loop.models[0]), tau=0.025, limit=LIMIT)
        result = row["das"]
        assert result.tokens == [s.token for s in steps]
        assert result.branch == [s.branch for s in steps]
        want = np.array([s.confidence for s in steps], dtype=np.float32)
        np.testing.assert_allclose(result.confidence, want, rtol=2e-4, atol=1e-6)
        seen |= set(result.rule)
        chosen = [row[b] for row, b in zip(want, result.branch, strict=True)]
        assert result.avg_logprob == pytest.approx(np.log(chosen).mean(), abs=1e-3)
    if mix in ("none", "equal"):
        assert Rule.BASE in seen
    if mix != "none" and count > 1:
        assert {Rule.MAX, Rule.MIN} <= seen


def test_the_random_branches_disagree_and_end_at_different_lengths(tmp_path, base):
    engine, _, _ = system(tmp_path, base, "distinct")
    rows = engine.transcribe(
        clips(8), {"das": Adml(), "base": Fixed(0), **{f"a{i}": Fixed(i) for i in (1, 2, 3)}}
    )
    assert len({len(row["das"].tokens) for row in rows}) > 1
    assert {b for row in rows for b in row["das"].branch} == {0, 1, 2, 3}
    for row in rows:
        assert len({tuple(result.tokens) for result in row.values()}) > 2


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_a_fixed_branch_gives_what_stock_generate_gives(tmp_path, base, branch):
    engine, _, folders = system(tmp_path, base, "distinct")
    audio = clips(4)
    model = WhisperForConditionalGeneration.from_pretrained(base)
    if branch:
        model = PeftModel.from_pretrained(model, folders[branch - 1])
    end = model.generation_config.eos_token_id
    options = {"language": "en", "task": "transcribe", "do_sample": False, "num_beams": 1}
    rows = engine.transcribe(audio, {"fixed": Fixed(branch)})
    for mel, row in zip(engine.features(audio), rows, strict=True):
        want = model.generate(input_features=mel.unsqueeze(0), max_new_tokens=LIMIT, **options)[
            0
        ].tolist()
        got = row["fixed"].tokens
        assert [t for t in want if t < end] == [t for t in got if t != end]
        assert row["fixed"].confidence.shape == (len(got), 1)
        assert set(row["fixed"].branch) == {branch}


def test_a_batch_gives_what_single_utterances_give(tmp_path, base):
    engine, _, _ = system(tmp_path, base, "mixed")
    audio = clips(9, seed=7)
    strategies = {"das": Adml(), "max": MaxConfidence(), "a1": Fixed(2)}
    together = engine.transcribe(audio, strategies, batch_size=4)
    for clip, row in zip(audio, together, strict=True):
        [alone] = engine.transcribe([clip], strategies)
        for name in strategies:
            assert row[name].tokens == alone[name].tokens
            assert row[name].text == alone[name].text
            assert row[name].branches == ((2,) if name == "a1" else (0, 1, 2, 3, 4))


@pytest.mark.parametrize("mix", ["one", "distinct", "mixed", "pissa"])
@pytest.mark.parametrize("draft", [1, 3, 20])
def test_lookahead_gives_the_very_tokens_of_the_stepwise_loop(tmp_path, base, mix, draft):
    stepwise, _, folders = system(tmp_path, base, mix)
    named = {f"a{i}": folder for i, folder in enumerate(folders)}
    ahead = Transcriber.from_pretrained(
        base, named, language="en", max_new_tokens=LIMIT, lookahead=draft
    )
    deviations = 0
    for clip in clips(6, seed=2):
        for strategy in (Adml(), MaxConfidence(), Fixed(0)):
            [want] = stepwise.transcribe([clip], {"x": strategy})
            [got] = ahead.transcribe([clip], {"x": strategy})
            assert got["x"].tokens == want["x"].tokens
            assert got["x"].branch == want["x"].branch
            assert got["x"].rule == want["x"].rule
            np.testing.assert_allclose(
                got["x"].confidence, want["x"].confidence, rtol=2e-4, atol=1e-6
            )
            deviations += sum(branch != 0 for branch in got["x"].branch)
    assert deviations > 5, "the drafts are never thrown away"


def test_a_subset_of_branches_decodes_as_a_bank_of_those_alone(tmp_path, base):
    engine, _, folders = system(tmp_path, base, "distinct")
    audio = clips(3)
    subset = decode(engine, audio, Adml(), branches=(0, 2))
    small = Transcriber.from_pretrained(
        base, {"x": folders[1]}, language="en", max_new_tokens=LIMIT
    )
    for got, want in zip(subset, decode(small, audio, Adml()), strict=True):
        assert got.tokens == want.tokens
        assert got.branch == [2 * b for b in want.branch]
        assert got.columns == (0, 2)


def test_adapters_can_come_and_go_between_decodes(tmp_path, base):
    engine, _, folders = system(tmp_path, base, "distinct")
    audio = clips(3)
    before = decode(engine, audio, Adml())
    third = decode(engine, audio, Fixed(3))
    engine.bank.remove("a0")
    assert engine.bank.names == ("base", "a1", "a2")
    assert [r.tokens for r in decode(engine, audio, Fixed(2))] == [r.tokens for r in third]
    engine.bank.remove("a1")
    engine.bank.remove("a2")
    for name, folder in zip(("a0", "a1", "a2"), folders, strict=True):
        engine.bank.add(name, folder)
    assert [r.tokens for r in decode(engine, audio, Adml())] == [r.tokens for r in before]


def test_the_base_detects_the_language_that_stock_whisper_detects(base):
    engine = Transcriber.from_pretrained(base, {}, max_new_tokens=LIMIT)
    model = WhisperForConditionalGeneration.from_pretrained(base)
    audio = clips(12, seed=3)
    rows = engine.transcribe(audio, {"base": Fixed(0)})
    ids = model.detect_language(input_features=engine.features(audio)).flatten().tolist()
    codes = {v: k.strip("<|>") for k, v in model.generation_config.lang_to_id.items()}
    assert [row["base"].language for row in rows] == [codes[i] for i in ids]
    loop = Loop(base, [])
    for mel, row in zip(engine.features(audio), rows, strict=True):
        steps = loop(mel, prompt(model, row["base"].language), tau=0.5, limit=LIMIT)
        assert row["base"].tokens == [s.token for s in steps]


@pytest.mark.parametrize("multilingual", [True, False])
def test_no_speech_is_as_likely_as_stock_whisper_finds_it(tmp_path, multilingual):
    folder = tiny_whisper(tmp_path / "tiny", multilingual=multilingual)
    adapter = pissa_adapter(tmp_path / "a", folder, seed=1, size=1.0)[0]  # moves the base's weights
    transcriber = Transcriber.from_pretrained(folder, {"a": adapter})
    mel = transcriber.features(clips(4))
    engine = transcriber.engine
    rows = [2, 0, 3]
    heard = engine.no_speech(engine.memory(engine.encode(mel)), rows)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    start = torch.full((3, 1), model.generation_config.decoder_start_token_id)
    with torch.inference_mode():
        p_BV = model(input_features=mel[rows], decoder_input_ids=start).logits[:, 0].softmax(-1)
    # <|nospeech|> stands before <|notimestamps|> in every vocabulary.
    wanted = p_BV[:, model.generation_config.no_timestamps_token_id - 1].tolist()
    assert heard == pytest.approx(wanted, rel=1e-4)
    assert len({round(p, 6) for p in heard}) == 3


def test_an_english_only_model_has_the_short_prompt(tmp_path):
    folder = tiny_whisper(tmp_path / "en", multilingual=False)
    engine = Transcriber.from_pretrained(folder, {}, max_new_tokens=LIMIT)
    loop = Loop(folder, [])
    g = loop.models[0].generation_config
    audio = clips(2)
    for mel, row in zip(
        engine.features(audio), engine.transcribe(audio, {"base": Fixed(0)}), strict=True
    ):
        steps = loop(
            mel, [g.decoder_start_token_id, g.no_timestamps_token_id], tau=0.5, limit=LIMIT
        )
        assert row["base"].tokens == [s.token for s in steps]
        assert row["base"].language == "en"
    with pytest.raises(DasError, match="language is 'de', the model knows en"):
        Transcriber.from_pretrained(folder, {}, language="de")


def test_a_transcript_never_outgrows_the_positions_of_the_model(tmp_path):
    folder = tiny_whisper(tmp_path / "short", max_target_positions=9)
    engine = Transcriber.from_pretrained(folder, {}, language="en")
    rows = engine.transcribe(clips(6), {"base": Fixed(0)})
    assert max(len(row["base"].tokens) for row in rows) == 9 - 4


# Of the weights alone, and of everything.
@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 0.01), ("bfloat16-all", 0.08)])
def test_bfloat16_decodes_and_mostly_agrees_with_float32(tmp_path, base, precision, off):
    engine, _, folders = system(tmp_path, base, "mixed")
    half = Transcriber.from_pretrained(
        base,
        {f"a{i}": f for i, f in enumerate(folders)},
        precision=precision,
        language="en",
        max_new_tokens=1,
    )
    audio = clips(8)
    full_rows = engine.transcribe(audio, {"das": Adml()})
    half_rows = half.transcribe(audio, {"das": Adml()})
    for full, row in zip(full_rows, half_rows, strict=True):
        assert row["das"].confidence.dtype == np.float32
        np.testing.assert_allclose(row["das"].confidence[0], full["das"].confidence[0], atol=off)
        assert not np.array_equal(row["das"].confidence[0], full["das"].confidence[0])


def test_bad_clips_are_rejected_one_by_one(tmp_path):
    folder = tiny_whisper(tmp_path / "long", chunk_s=30)
    engine = Transcriber.from_pretrained(folder, {}, language="en", max_new_tokens=2)
    second = np.zeros(16_000, np.float32)
    bad = second.copy()
    bad[5] = np.nan
    audio = [
        np.zeros(0, np.float32),
        second[:1599],
        bad,
        np.zeros(480_001, np.float32),
        second.reshape(2, -1),
        [0.0] * 16_000,
        (second).astype(np.int16),
        second[:1600],
        np.full(480_000, 0.01, np.float32),
    ]
    ids = [f"clip{i}" for i in range(len(audio))]
    rows = engine.transcribe(audio, {"base": Fixed(0)}, ids=ids)
    assert [(r.id, r.reason) for r in rows if isinstance(r, Reject)] == list(
        zip(
            ids,
            ["empty", "too-short", "not-finite", "too-long", "not-mono", "not-mono", "not-float"],
            strict=False,
        )
    )
    assert all(r.detail for r in rows if isinstance(r, Reject))
    assert [len(r["base"].tokens) for r in rows[7:] if isinstance(r, dict)] == [2, 2]


def test_no_clip_at_all_gives_no_row(base):
    assert Transcriber.from_pretrained(base, {}).transcribe([], {"base": Fixed(0)}) == []


def test_a_base_without_prompt_tokens_is_refused_with_the_remedy(tmp_path):
    folder = tiny_whisper(tmp_path / "bare")
    (folder / "generation_config.json").write_text('{"eos_token_id": 256, "pad_token_id": 256}')
    with pytest.raises(ModelError, match=r"lacks .*copy the file"):
        Transcriber.from_pretrained(folder, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"lookahead": -1}, "lookahead is -1"),
        ({"language": "xx"}, "knows de, en"),
    ],
)
def test_options_out_of_range_are_refused(base, options, message):
    with pytest.raises(DasError, match=message):
        Transcriber.from_pretrained(base, {}, **options)
