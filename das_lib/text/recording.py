"""Replies of an LLM, recorded once and given again: a run without the model, for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from das_lib.errors import DasError
from das_lib.ids import content_hash
from das_lib.storage import read_file
from das_lib.text.engine import Answer, Chat


class RecordedLlm:
    """Gives each chat the answer that was recorded for it; another chat has none."""

    def __init__(self, path: str) -> None:
        """Read a recording.

        Raises:
            DasError: the file is missing or no recording.
        """
        try:
            lines = [json.loads(line) for line in read_file(path).decode().splitlines()]
            self._answers: dict[str, Answer] = {
                line["chat"]: (line["reply"], line["error"], line["tokens"]) for line in lines
            }
        except (ValueError, KeyError, TypeError) as error:
            raise DasError(
                f"llm.recording={path} is no recording ({error}); make one with llm.record"
            ) from error

    def replies(self, chats: Sequence[Chat]) -> list[Answer]:
        """An answer to each chat, in their order."""
        missing = ("", "no recorded reply to this chat; record it with llm.record", 0)
        return [self._answers.get(chat_key(*chat), missing) for chat in chats]


class Recorder:
    """Appends answers to a recording as they come."""

    def __init__(self, path: str, prompts: Sequence[Mapping[str, Any]]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._chats = {p["id"]: chat_key(p["messages"], p["sampling_params"]) for p in prompts}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record the answers in ``rows`` to the prompts that have their ids."""
        with self._path.open("a", encoding="utf-8") as file:
            for row in rows:
                answer = {name: row[name] for name in ("reply", "error", "tokens")}
                line = {"chat": self._chats[row["id"]], **answer}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def chat_key(messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]) -> str:
    """Hash of a chat and the seed that it is asked with."""
    return content_hash({"messages": [dict(m) for m in messages], "seed": params["seed"]})
