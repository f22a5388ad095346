"""An entry of a manifest, in any of the usual forms, as a `Recording`.

Columns, the first that is there and not empty:

    audio, audio_filepath, path, file, url    where the file is: relative to the manifest, absolute,
                                              or an address such as s3://bucket/name
    id, utt_id                                what to call the recording
    start_s, offset, start                    where the part begins, in seconds; 0
    duration_s, duration                      how long it is, in seconds; to the end
    channel                                   the channel to hear, from 0; the mean of all

In many manifests ``duration`` says how long the whole file is; then the start is 0 and it changes
nothing. The other columns that are no lists or objects are kept. Cuts and recordings of lhotse are
known by their ``recording`` (an object) and ``sources`` (a list).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from das_lib.bulk.kinds import resolve
from das_lib.bulk.recording import Recording
from das_lib.speech.audio import AudioError

AUDIO_COLUMNS = ("audio", "audio_filepath", "path", "file", "url")
ID_COLUMNS = ("id", "utt_id")
START_COLUMNS = ("start_s", "offset", "start")
DURATION_COLUMNS = ("duration_s", "duration")
CHANNEL_COLUMN = "channel"
MAX_CHANNEL = 2**31 - 1


def to_recording(entry: object, folder: str) -> Recording:
    """The recording that an entry names; ``folder`` is the manifest's.

    Without an id it is called by its path as written, with ``#start-duration`` (three decimals) if
    one of them is given and ``@channel`` if that is.

    Raises:
        AudioError: ``no-json`` (no object), ``no-audio`` (no path), ``bad-time`` (a start below 0,
            a duration of 0 or less, or no finite number) or ``bad-channel`` (no whole number from
            0).
    """
    if not isinstance(entry, dict):
        raise AudioError("no-json", f"an object is needed, found {str(entry)[:200]}")
    rest = dict(entry)
    if isinstance(entry.get("recording"), dict):
        return _cut(rest, folder)
    if isinstance(entry.get("sources"), list):
        return _lhotse(rest, entry["sources"], folder)
    audio = take(rest, AUDIO_COLUMNS)
    if not isinstance(audio, str):
        columns = ", ".join(AUDIO_COLUMNS)
        raise AudioError("no-audio", f"none of {columns} is a path in {str(entry)[:200]}")
    name = take(rest, ID_COLUMNS)
    start, duration = take(rest, START_COLUMNS), take(rest, DURATION_COLUMNS)
    channel = _channel(take(rest, (CHANNEL_COLUMN,)))
    start_s, duration_s = _part(start, duration)
    if name is None:
        name = audio
        if start is not None or duration is not None:
            name += f"#{start_s:.3f}-" + ("" if duration_s is None else f"{duration_s:.3f}")
        if channel is not None:
            name += f"@{channel}"
    return Recording(
        id=str(name),
        url=resolve(folder, audio),
        start_s=start_s,
        duration_s=duration_s,
        channel=channel,
        extra=to_extra(rest),
    )


def to_extra(values: Mapping[str, Any]) -> str | None:
    """A JSON object of the values that are text, numbers, booleans or null; None: there are none.

    Numbers that JSON lacks (NaN, infinities) become null.
    """
    kept = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
        if value is None or isinstance(value, str | int | float)
    }
    if not kept:
        return None
    # A lone surrogate, which JSON may hold as \ud800, is no UTF-8: Arrow would refuse it.
    return json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


def take(values: dict[str, Any], columns: tuple[str, ...]) -> Any:
    """Remove and return the first value that is there and not empty; None: there is none."""
    for column in columns:
        value = values.pop(column, None)
        if value not in (None, ""):
            return value
    return None


def to_json(text: str) -> object:
    """What a text is as JSON, or None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of more digits than Python reads
        return None


def _part(start: object, duration: object) -> tuple[float, float | None]:
    start_s = 0.0 if start is None else _seconds("start", start)
    duration_s = None if duration is None else _seconds("duration", duration)
    if start_s < 0:
        raise AudioError("bad-time", f"start {start_s} is below 0")
    if duration_s is not None and duration_s <= 0:
        raise AudioError("bad-time", f"duration {duration_s} is not above 0")
    return start_s, duration_s


def _seconds(name: str, value: object) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            seconds = math.nan
        if math.isfinite(seconds):
            return seconds
    raise AudioError("bad-time", f"{name} {str(value)[:60]!r} is no finite number of seconds")


def _channel(value: object) -> int | None:
    if value is None:
        return None
    number = value
    if isinstance(value, str):
        number = int(value) if value.isascii() and value.isdigit() else None
    elif isinstance(value, float):  # Parquet and JSON of a column with gaps
        number = int(value) if value.is_integer() else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_CHANNEL:
        raise AudioError("bad-channel", f"channel {str(value)[:60]!r} is no whole number from 0")
    return number


def _cut(rest: dict[str, Any], folder: str) -> Recording:
    """A cut of lhotse; one of several channels is heard as their mean."""
    sources = rest.pop("recording").get("sources")
    start_s, duration_s = _part(take(rest, ("start",)), take(rest, ("duration",)))
    channel = rest.pop(CHANNEL_COLUMN, None)
    channel = None if isinstance(channel, list) else _channel(channel)
    whole = _lhotse(rest, sources if isinstance(sources, list) else [], folder, channel)
    return replace(whole, start_s=start_s, duration_s=duration_s)


def _lhotse(
    rest: dict[str, Any], sources: list[Any], folder: str, channel: int | None = None
) -> Recording:
    """A recording of lhotse that is one file, or whose ``channel`` is in one."""
    files = [source for source in sources if isinstance(source, dict)]
    if channel is not None:
        files = [file for file in files if channel in _channels(file)] or files
    if len(files) != 1 or files[0].get("type") not in ("file", "url"):
        kinds = ", ".join(str(file.get("type")) for file in files) or "none"
        raise AudioError("no-audio", f"one source of type file is needed, found {kinds}")
    path = files[0].get("source")
    if not isinstance(path, str) or not path:
        raise AudioError("no-audio", f"the source's path is {str(path)[:60]!r}")
    if channel is not None and channel in _channels(files[0]):
        # lhotse counts over all files of a recording, we within the file.
        channel = _channels(files[0]).index(channel)
    name = take(rest, ("id",))
    rest.pop("type", None)
    return Recording(
        id=path if name is None else str(name),
        url=resolve(folder, path),
        channel=channel,
        extra=to_extra(rest),
    )


def _channels(source: dict[str, Any]) -> list[Any]:
    channels = source.get("channels")
    return channels if isinstance(channels, list) else []
