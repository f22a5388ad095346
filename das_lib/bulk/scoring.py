"""NIST's forms for scoring tools: ctm, a line for each word, and stm, a line for each segment.

Scoring tools want the lines sorted by id and time: sort the files of a run together.
"""

from das_lib.bulk.transcript import Transcript
from das_lib.bulk.written import one_line
from das_lib.errors import DasError


def ctm(transcript: Transcript) -> str:
    """``<id> 1 <start> <duration> <word> <confidence>``, times in s.

    Raises:
        DasError: the words have no times.
    """
    lines = []
    for segment in transcript.segments:
        if segment.text and not segment.words:
            raise _no_times(transcript)
        for word in segment.words:
            if word.start_s is None or word.end_s is None:
                raise _no_times(transcript)
            start, end = round(1000 * word.start_s), round(1000 * word.end_s)
            if text := one_line(word.text).replace(" ", "_"):
                lines.append(
                    f"{_name(transcript.id)} 1 {start / 1000:.3f} {(end - start) / 1000:.3f} "
                    f"{text} {word.confidence:.4f}\n"
                )
    return "".join(lines)


def stm(transcript: Transcript) -> str:
    """``<id> 1 unknown <start> <end> <o,LANGUAGE,unknown> text``, times in s.

    The speaker is unknown; the label holds what sclite breaks its scores down by.
    """
    return "".join(
        f"{_name(transcript.id)} 1 unknown {segment.start_s:.3f} {segment.end_s:.3f} "
        f"<o,{transcript.language},unknown> {text}\n"
        for segment in transcript.segments
        if (text := one_line(segment.text))
    )


def _name(id: str) -> str:
    """The id as one field: what ends a field or begins a comment is percent-encoded."""
    return "".join(
        c if c.isprintable() and c not in " %;" else "".join(f"%{b:02X}" for b in c.encode())
        for c in id
    )


def _no_times(transcript: Transcript) -> DasError:
    return DasError(
        f"ctm needs the time of each word and {transcript.id!r} has none; transcribe with "
        "--word-times, or leave ctm out of the formats"
    )
