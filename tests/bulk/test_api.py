import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import Transcription, TranscriptionVerbose

from das_lib.bulk.api import (
    FIELDS,
    FORM_BYTES,
    FORMATS,
    ApiError,
    Asked,
    Limits,
    answer,
    audio_error,
    bounded,
    check_exposure,
    check_length,
    is_authorized,
    known_model,
    model_list,
    parse_fields,
)
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.errors import DasError
from das_lib.speech.audio import SAMPLE_RATE, AudioError

MODELS = {"base": "base", "music": "lora:music", "das": "das"}
SEGMENT = Segment(
    start_s=0.5,
    end_s=2.0,
    text="Über & out.",
    avg_logprob=-0.25,
    compression_ratio=1.1,
    no_speech_prob=0.1,
    words=(
        Word(text="Über", adapter="base", confidence=0.5, start_s=0.5, end_s=1.0),
        Word(text="&", adapter="base", confidence=0.5, start_s=1.0, end_s=1.5),
        Word(text="out.", adapter="music", confidence=0.5, start_s=1.5, end_s=2.0),
    ),
)
TALK = Transcript(id="upload", language="en", duration_s=3.0, speech_s=2.0, segments=(SEGMENT,))
QUIET = replace(TALK, segments=())


def parsed(*fields, language="en"):
    return parse_fields(fields, MODELS, language)


def refused(*fields, language="en"):
    with pytest.raises(ApiError) as error:
        parsed(*fields, language=language)
    return error.value


def test_a_model_alone_is_answered_in_json():
    assert parsed(("model", "music")) == Asked(system="lora:music", format="json")


@pytest.mark.parametrize("language", ["en", None])
def test_what_clients_leave_empty_is_not_asked(language):
    fields = [("model", "das"), ("prompt", ""), ("language", ""), ("temperature", "")]
    assert parsed(*fields, ("stream", ""), language=language) == Asked(system="das")


def test_what_the_server_does_anyway_may_be_said():
    fields = [("language", "EN"), ("temperature", "0.0"), ("stream", "False")]
    assert parsed(("model", "das"), *fields) == Asked(system="das")


@pytest.mark.parametrize(
    ("granularities", "segments", "words"),
    [((), True, False), (("word",), False, True), (("segment", "word"), True, True)],
)
def test_verbose_json_lists_what_is_asked_for(granularities, segments, words):
    fields = [("model", "base"), ("response_format", "verbose_json")]
    fields += [("timestamp_granularities[]", value) for value in granularities]
    asked = parsed(*fields)
    assert (asked.segments, asked.words) == (segments, words)
    value = json.loads(answer(TALK, asked)[0])
    assert ("segments" in value, "words" in value) == (segments, words)
    verbose = TranscriptionVerbose.model_validate(value, strict=True)
    assert (verbose.text, verbose.language, verbose.duration) == ("Über & out.", "english", 3.0)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([], "model", "missing_required_parameter"),
        ([("model", "")], "model", "missing_required_parameter"),
        ([("model", "das"), ("model", "base")], "model", "invalid_value"),
        ([("model", "das"), ("prompt", "a name")], "prompt", "unsupported_parameter"),
        ([("model", "das"), ("diarize", "1")], "diarize", "unsupported_parameter"),
        ([("model", "das"), ("language", "de")], "language", "unsupported_value"),
        ([("model", "das"), ("temperature", "0.2")], "temperature", "unsupported_value"),
        ([("model", "das"), ("temperature", "nan")], "temperature", "unsupported_value"),
        ([("model", "das"), ("temperature", "warm")], "temperature", "unsupported_value"),
        ([("model", "das"), ("stream", "true")], "stream", "unsupported_value"),
        ([("model", "das"), ("response_format", "xml")], "response_format", "invalid_value"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields, param, code):
    error = refused(*fields)
    assert (error.status, error.param, error.code) == (400, param, code)
    assert error.body["error"]["type"] == "invalid_request_error"
    assert param in error.message


@pytest.mark.parametrize(("format", "value"), [("json", "word"), ("verbose_json", "letter")])
def test_granularities_are_checked(format, value):
    times = ("timestamp_granularities[]", value)
    error = refused(("model", "das"), ("response_format", format), times)
    assert (error.param, error.code) == ("timestamp_granularities[]", "invalid_value")


def test_no_language_can_be_asked_for_where_it_is_detected():
    error = refused(("model", "das"), ("language", "en"), language=None)
    assert error.message == "language='en': the language is found; leave it out"


def test_an_unknown_model_lists_those_that_there_are():
    for error in (refused(("model", "whisper-1")), _unknown("whisper-1")):
        assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
        assert "'whisper-1'" in error.message
        assert "base, music, das" in error.message
    assert [model["id"] for model in model_list(MODELS, 1)["data"]] == list(MODELS)


def _unknown(name):
    with pytest.raises(ApiError) as error:
        known_model(name, MODELS)
    return error.value


ANY = st.text(st.characters())


@given(st.lists(st.tuples(st.sampled_from(FIELDS) | ANY, ANY)))
def test_any_field_is_taken_or_refused_in_a_short_answer_that_can_be_sent(fields):
    body = {}
    try:
        parsed(*fields)
    except ApiError as error:
        body = error.body
    assert len(json.dumps(body, ensure_ascii=False).encode()) < 2000


def test_a_field_of_half_a_character_is_refused():
    assert refused(("\ud800", "x")).param == "\\ud800"


def test_one_upload_of_the_largest_size_must_fit():
    Limits(max_bytes=2**20, max_uploading=2**20 + FORM_BYTES)
    with pytest.raises(DasError, match="max_uploading=1048576 is below max_bytes=1048576"):
        Limits(max_bytes=2**20, max_uploading=2**20)


@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("json", '{"text": "Über & out."}'),
        ("text", "Über & out.\n"),
        ("srt", "1\n00:00:00,500 --> 00:00:02,000\nÜber & out.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nÜber &amp; out.\n"),
    ],
)
def test_each_format_has_its_form(format, body):
    found, media_type = answer(TALK, Asked(system="das", format=format))
    assert found == body
    assert media_type == ("application/json" if format == "json" else "text/plain")


@pytest.mark.parametrize("format", FORMATS)
def test_silence_has_an_answer_in_every_format(format):
    body, media_type = answer(QUIET, Asked(system="das", format=format, words=True))
    if media_type == "application/json":
        kind = Transcription if format == "json" else TranscriptionVerbose
        assert kind.model_validate(json.loads(body), strict=True).text == ""
    else:
        assert body.strip() in ("", "WEBVTT")


@pytest.mark.parametrize(
    ("reason", "status"),
    [("not-audio", 400), ("truncated", 400), ("too-long", 413), ("storage", 500)],
)
def test_the_reason_of_a_bad_recording_is_the_code(reason, status):
    error = audio_error(AudioError(reason, "here"))
    assert (error.status, error.code, error.param) == (status, reason, "file")
    assert "here" in error.message


@pytest.mark.parametrize(
    ("status", "kind", "headers"),
    [
        (401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
        (429, "rate_limit_error", {"Retry-After": "5"}),
        (503, "server_error", {"Retry-After": "5"}),
        (504, "server_error", {}),
    ],
)
def test_an_error_says_who_is_to_blame_and_when_to_come_back(status, kind, headers):
    error = ApiError(status, "a_code", "A message.")
    wanted = {"message": "A message.", "type": kind, "param": None, "code": "a_code"}
    assert error.body == {"error": wanted}
    assert error.headers == headers


def test_audio_is_handed_out_up_to_the_bound_and_no_further():
    limits = Limits(max_seconds=2)
    blocks = [np.full(SAMPLE_RATE, i, np.float32) for i in range(4)]
    assert len(list(bounded(blocks[:2], limits))) == 2
    taken = []
    with pytest.raises(AudioError) as error:
        taken.extend(bounded(iter(blocks), limits))
    assert error.value.reason == "too-long"
    assert len(taken) == 2


def test_a_header_beyond_the_bound_is_enough():
    with pytest.raises(AudioError, match=r"too-long: 2\.5 s, more than 2 s of audio; cut it"):
        check_length(2.5, Limits(max_seconds=2))


def test_a_header_within_the_bound_or_without_a_length_passes():
    check_length(2.0, Limits(max_seconds=2))
    check_length(None, Limits(max_seconds=2))


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret "])
def test_the_token_opens(header):
    assert is_authorized(header, "s3cret")


@pytest.mark.parametrize(
    "header", [None, "", "s3cret", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer s3crét"]
)
def test_nothing_else_does(header):
    assert not is_authorized(header, "s3cret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    check_exposure(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])
def test_other_machines_need_one(host):
    with pytest.raises(DasError, match=r"--host=.*DAS_TOKEN.*--token-env.*--host=127\.0\.0\.1"):
        check_exposure(host, None)
    check_exposure(host, "s3cret")


@pytest.mark.parametrize("token", ["", " ", "two words", "line\n", "schlüssel"])
def test_a_token_that_cannot_be_sent_is_refused(token):
    with pytest.raises(DasError, match="--token-env"):
        check_exposure("127.0.0.1", token)


@pytest.mark.parametrize("field", ["max_bytes", "max_seconds", "timeout_s", "max_concurrent"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_lets_nothing_through_is_refused(field, value):
    with pytest.raises(DasError, match=f"{field}={value}"):
        Limits(**{field: value})
