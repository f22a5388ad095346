import io
import json
import re

import av
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.audio import TranscriptionVerbose
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from das_lib.bulk.file_names import file_name
from das_lib.bulk.formats import FORMATS, PER_BLOCK, PER_RECORDING, render
from das_lib.bulk.json_forms import verbose_json
from das_lib.bulk.languages import NAMES, language_name
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.errors import DasError
from das_lib.storage import Folder


def segment(start_s, end_s, text, *, times=True):
    """A segment whose words share its time."""
    texts = text.split()
    step = (end_s - start_s) / max(1, len(texts))
    words = tuple(
        Word(
            text=word,
            adapter="food" if number % 2 else "base",
            confidence=0.875,
            start_s=start_s + number * step if times else None,
            end_s=start_s + (number + 1) * step if times else None,
        )
        for number, word in enumerate(texts)
    )
    return Segment(
        start_s=start_s,
        end_s=end_s,
        text=text,
        avg_logprob=-0.25,
        compression_ratio=0.75,
        no_speech_prob=0.125,
        words=words,
    )


def transcript(*segments, id="calls/a.wav", language="en"):
    return Transcript(
        id=id, language=language, duration_s=12.5, speech_s=9.25, segments=tuple(segments)
    )


TALK = transcript(segment(0.5, 2.5, "Fish & chips?"), segment(3661.25, 3662.0, "a <b> --> c"))
QUIET = transcript()


def ms(clock, mark):
    """Milliseconds of ``HH:MM:SS`` and three more digits behind the mark."""
    hours, minutes, seconds, rest = re.fullmatch(
        rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(mark)}(\d\d\d)", clock
    ).groups()
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def read_cues(text, mark):
    """Cues as (start, end, line), by the grammar of srt and vtt alone."""
    cues = []
    for number, block in enumerate(text.split("\n\n"), 1):
        lines = block.rstrip("\n").split("\n")
        if mark == ",":
            assert lines.pop(0) == str(number)
        timing, line = lines
        start, end = timing.split(" --> ")
        assert "-->" not in line
        cues.append((ms(start, mark), ms(end, mark), line))
    return cues


def read_srt(text):
    assert text == "" or text.endswith("\n\n")
    return read_cues(text[:-2], ",") if text else []


def read_vtt(text):
    head, _, cues = text.partition("\n\n")
    if not cues:
        return [] if text == "WEBVTT\n" else pytest.fail(text)
    assert head == "WEBVTT"
    found = []
    for start, end, line in read_cues(cues, "."):
        assert re.fullmatch(r"([^&<>]|&(amp|lt|gt);)*", line)
        plain = line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        found.append((start, end, plain))
    return found


def heard_by_ffmpeg(text, format):
    """Cues as FFmpeg reads them: (start, end) in ms, and the raw text."""
    with av.open(io.BytesIO(text.encode()), format=format) as file:
        return [
            (packet.pts, packet.pts + packet.duration, bytes(packet).decode())
            for packet in file.demux()
            if packet.pts is not None
        ]


def test_each_format_has_a_file_for_each_recording_or_for_each_block():
    assert sorted(PER_RECORDING + PER_BLOCK) == sorted(FORMATS)


@pytest.mark.parametrize(
    ("format", "content"),
    [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("ctm", ""), ("stm", "")],
)
def test_silence_has_a_valid_file_too(format, content):
    assert render(QUIET, format) == content


def test_txt_has_a_line_for_each_segment():
    odd = transcript(segment(0, 1, "One\ntwo."), segment(1, 2, "Three."))
    assert render(odd, "txt") == "One two.\nThree.\n"


def test_srt_is_numbered_and_has_no_arrow_in_its_text():
    assert render(TALK, "srt") == (
        "1\n00:00:00,500 --> 00:00:02,500\nFish & chips?\n\n"
        "2\n01:01:01,250 --> 01:01:02,000\na <b> -> c\n\n"
    )


def test_vtt_is_escaped():
    assert render(TALK, "vtt") == (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:02.500\nFish &amp; chips?\n"
        "\n01:01:01.250 --> 01:01:02.000\na &lt;b&gt; --&gt; c\n"
    )


@pytest.mark.parametrize(("format", "demuxer"), [("srt", "srt"), ("vtt", "webvtt")])
def test_ffmpeg_reads_the_subtitles(format, demuxer):
    cues = heard_by_ffmpeg(render(TALK, format), demuxer)
    assert [cue[:2] for cue in cues] == [(500, 2500), (3661250, 3662000)]
    assert cues[0][2] == ("Fish & chips?" if format == "srt" else "Fish &amp; chips?")


def test_a_hundred_hours_need_three_digits():
    assert "123:00:01,000 --> 123:00:02,000" in render(
        transcript(segment(442801, 442802, "late")), "srt"
    )


def test_cues_without_length_are_widened_and_do_not_overlap():
    odd = transcript(segment(1, 1, "a"), segment(1, 1, "b"), segment(1.03, 2, "c"))
    expected = [(1000, 1020, "a"), (1020, 1040, "b"), (1040, 2000, "c")]
    assert read_srt(render(odd, "srt")) == expected
    assert read_vtt(render(odd, "vtt")) == expected


@st.composite
def odd_transcripts(draw):
    """Any text, at times that go forward."""
    texts = draw(st.lists(st.text() | st.text("->&<;\n \x00\u2028a1"), max_size=5))
    count = 2 * len(texts)
    times = sorted(draw(st.lists(st.floats(0, 1e6), min_size=count, max_size=count)))
    return transcript(
        *(segment(times[2 * n], times[2 * n + 1], text) for n, text in enumerate(texts))
    )


@settings(deadline=None)
@example(transcript(segment(0, 1, "a --->\n\n2\n00:00:01,000 --> 00:00:02,000\nb &lt; <i>")))
@given(odd_transcripts())
def test_any_text_makes_valid_subtitles(odd):
    cues = read_vtt(render(odd, "vtt"))
    lines = [" ".join(re.sub(r"[\x00-\x1f\x7f]", " ", s.text).split()) for s in odd.segments]
    lines = [line for line in lines if line]
    assert [line for _, _, line in cues] == lines
    bounds = [t for start, end, _ in cues for t in (start, end)]
    assert bounds == sorted(bounds)
    assert all(end - start >= 20 for start, end, _ in cues)
    plain = [(start, end, re.sub("-+->", "->", line)) for start, end, line in cues]
    assert read_srt(render(odd, "srt")) == plain


def test_json_is_what_openai_whisper_writes():
    text = render(TALK, "json")
    result = json.loads(text)
    assert text.count("\n") == 1
    assert (result["text"], result["language"]) == ("Fish & chips? a <b> --> c", "en")
    assert "".join(part["text"] for part in result["segments"]) == " " + result["text"]
    first = result["segments"][0]
    words = first.pop("words")
    assert first == {
        "id": 0,
        "seek": 0,
        "start": 0.5,
        "end": 2.5,
        "text": " Fish & chips?",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 0.75,
        "no_speech_prob": 0.125,
    }
    assert words[0] == {"word": " Fish", "start": 0.5, "end": 1.167, "probability": 0.875}
    assert "".join(word["word"] for word in words) == first["text"]


def test_json_words_of_a_language_without_blanks_join_to_the_text_too():
    words = tuple(
        Word(text=text, adapter="base", confidence=1.0, start_s=float(n), end_s=n + 1.0)
        for n, text in enumerate(["我用", "Python", "写。", "好"])
    )
    zh = Segment(
        start_s=0,
        end_s=4,
        text="我用 Python 写。好",
        avg_logprob=0,
        compression_ratio=1,
        words=words,
    )
    (part,) = json.loads(render(transcript(zh, language="zh"), "json"))["segments"]
    assert part["text"] == "我用 Python 写。好"
    assert [word["word"] for word in part["words"]] == ["我用", " Python", " 写。", "好"]


def test_json_has_no_words_without_times():
    plain = transcript(segment(0, 1, "a b", times=False))
    assert "words" not in json.loads(render(plain, "json"))["segments"][0]
    assert "words" not in verbose_json(plain)


def test_verbose_json_is_what_the_openai_client_reads():
    result = TranscriptionVerbose.model_validate_json(json.dumps(verbose_json(TALK)), strict=True)
    assert (result.language, result.duration) == ("english", 12.5)
    assert verbose_json(TALK)["task"] == "transcribe"
    assert [part.text for part in result.segments] == [" Fish & chips?", " a <b> --> c"]
    assert [word.word for word in result.words] == ["Fish", "&", "chips?", "a", "<b>", "-->", "c"]
    assert (result.words[1].start, result.words[1].end) == (1.167, 1.833)


def test_numbers_that_json_cannot_say_are_null():
    odd = Segment(
        start_s=0, end_s=1, text="a", avg_logprob=float("-inf"), compression_ratio=float("nan")
    )
    for format in ("json", "jsonl"):
        text = render(transcript(odd), format)
        (part,) = json.loads(text, parse_constant=pytest.fail)["segments"]
        assert (part["avg_logprob"], part["compression_ratio"]) == (None, None)


def test_jsonl_is_one_line_with_all_that_is_known():
    text = render(transcript(segment(0.5, 2.5, "Fish\nchips")), "jsonl")
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "id": "calls/a.wav",
        "text": "Fish\nchips",
        "language": "en",
        "duration_s": 12.5,
        "speech_s": 9.25,
        "segments": [
            {
                "start_s": 0.5,
                "end_s": 2.5,
                "text": "Fish\nchips",
                "avg_logprob": -0.25,
                "compression_ratio": 0.75,
                "no_speech_prob": 0.125,
                "temperature": 0.0,
                "words": [
                    {
                        "text": "Fish",
                        "adapter": "base",
                        "confidence": 0.875,
                        "start_s": 0.5,
                        "end_s": 1.5,
                    },
                    {
                        "text": "chips",
                        "adapter": "food",
                        "confidence": 0.875,
                        "start_s": 1.5,
                        "end_s": 2.5,
                    },
                ],
            }
        ],
    }


def test_ctm_has_a_line_for_each_word():
    odd = transcript(segment(0.5, 2.5, "Fish chips"), id="my calls/50% a;\n.wav")
    assert render(odd, "ctm") == (
        "my%20calls/50%25%20a%3B%0A.wav 1 0.500 1.000 Fish 0.8750\n"
        "my%20calls/50%25%20a%3B%0A.wav 1 1.500 1.000 chips 0.8750\n"
    )


@pytest.mark.parametrize(
    "plain",
    [
        segment(0, 1, "a b", times=False),
        Segment(start_s=0, end_s=1, text="a b", avg_logprob=0, compression_ratio=1),
    ],
    ids=["words without times", "no words"],
)
def test_ctm_without_word_times_says_how_to_get_them(plain):
    with pytest.raises(DasError, match=r"calls/a\.wav.*--word-times"):
        render(transcript(plain), "ctm")


def test_stm_has_a_line_for_each_segment():
    assert render(TALK, "stm") == (
        "calls/a.wav 1 unknown 0.500 2.500 <o,en,unknown> Fish & chips?\n"
        "calls/a.wav 1 unknown 3661.250 3662.000 <o,en,unknown> a <b> --> c\n"
    )


def said(part):
    return bool(re.sub(r"[\x00-\x1f\x7f\s]", "", part.text))


@settings(deadline=None)
@example(transcript(segment(0, 1, "\x08 a")), ";; a")
@given(odd_transcripts(), st.text(min_size=1))
def test_any_text_and_id_keep_the_fields_of_ctm_and_stm(odd, id):
    odd = transcript(*(s for s in odd.segments if s.words), id=id)
    words = [line.split() for line in render(odd, "ctm").splitlines()]
    assert [len(fields) for fields in words] == [6] * len(list(filter(said, odd.words)))
    segments = [line.split(maxsplit=6) for line in render(odd, "stm").splitlines()]
    assert [len(fields) for fields in segments] == [7] * len(list(filter(said, odd.segments)))
    assert len({fields[0] for fields in words + segments}) == (1 if segments else 0)
    assert not any(fields[0].startswith(";") for fields in segments)
    assert len(render(odd, "txt").splitlines()) == len(segments)


def test_languages_have_the_names_that_whisper_gives_them():
    assert NAMES == LANGUAGES
    assert language_name("xx") == "xx"


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("a.wav", "a.wav.srt"),
        ("a.mp3", "a.mp3.srt"),
        ("calls/été 1/a.wav", "calls/été 1/a.wav.srt"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd.srt"),
        ("/etc/passwd", "%/etc/passwd.srt"),
        ("a//b/", "a/%/b/%.srt"),
        ("./a", "%2E/a.srt"),
        ("C:\\a", "C%3A%5Ca.srt"),
        ("a\0b\nc", "a%00b%0Ac.srt"),
        ("100%", "100%25.srt"),
        ("a\udcff", "a%ED%B3%BF.srt"),
        ("a.srt/b.tmp/c", "a%2Esrt/b%2Etmp/c.srt"),
        ("", "%.srt"),
    ],
)
def test_an_id_has_a_safe_file_name(id, name):
    assert file_name(id, "srt") == name


COMPONENTS = st.one_of(
    st.sampled_from(
        ["", ".", "..", "a", "a.srt", "b.tmp", "%", "%25", "%2E", "a%2Esrt", "é" * 150]
    ),
    st.text("ab.%-/\\2E", max_size=6),
    st.text(st.characters(), max_size=300),
)
IDS = st.lists(COMPONENTS, min_size=1, max_size=6).map("/".join)


@settings(deadline=None)
@given(st.lists(IDS, min_size=2, max_size=12, unique=True))
def test_every_id_has_a_file_of_its_own_below_the_folder(tmp_path_factory, ids):
    folder = Folder(tmp_path_factory.mktemp("srt"))
    names = [file_name(id, "srt") for id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert all(0 < len(part.encode()) <= 255 for part in name.split("/"))
        assert len(name.encode()) <= 1024
        folder.write(name, name.encode())
    for name in names:
        assert folder.read(name) == name.encode()
    assert sorted(folder.fs.find(folder.url)) == sorted(folder.path(name) for name in names)


def test_ids_that_differ_far_behind_have_names_of_their_own():
    deep = "/".join(["folder" * 20] * 20)
    ids = ["x" * 300, "x" * 301, deep + "/a", deep + "/b", deep + "a", "b/" + deep + "/a"]
    ids += [file_name(id, "jsonl").removesuffix(".jsonl") for id in ids]
    names = {file_name(id, "jsonl") for id in ids}
    assert len(names) == len(ids)
    assert max(len(name.encode()) for name in names) <= 700
