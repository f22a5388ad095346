"""What an LLM engine is asked for each row; a remote engine; one without a model for tests."""

import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from das_lib.config.tree import Llm
from das_lib.errors import DasError

FREQUENCY_PENALTY = 0.4  # small models otherwise write one sentence over and over in a list
MIN_P = 0.1  # cuts the tail of unlikely tokens without the sort that top_p costs at each step
OPENAI_PARAMS = ("temperature", "top_p", "max_tokens", "frequency_penalty", "seed")

Chat = tuple[Sequence[Mapping[str, str]], Mapping[str, Any]]
"""Messages and sampling parameters."""
Answer = tuple[str, str, int]
"""Reply and error, one of them empty; tokens of the reply."""


def sampling_params(llm: Llm, row: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Sampling parameters of one row as vLLM takes them: strings and numbers only.

    ``pattern`` is a regular expression that binds the reply; the seed follows from the row's id, so
    a row that is asked again is asked the same.
    """
    return {
        "temperature": llm.temperature,
        "top_p": llm.top_p,
        "max_tokens": llm.max_tokens,
        "min_p": MIN_P,
        "frequency_penalty": FREQUENCY_PENALTY,
        "seed": int(row["id"][:7], 16),
        "structured_outputs": {"regex": pattern},
    }


class OpenAiLlm:
    """Any endpoint that speaks OpenAI's chat protocol.

    The pattern of the reply, and all else that the protocol lacks, is not sent: not every endpoint
    would take it, and the parsers do without.
    """

    def __init__(self, llm: Llm) -> None:
        """Make a client.

        Raises:
            DasError: the environment holds no key.
        """
        from openai import OpenAI

        key = os.environ.get(llm.api_key_env)
        if not key:
            raise DasError(
                f"llm.api_key_env={llm.api_key_env}: the environment of this worker has no such "
                "variable; set it where Ray is started (to any word for an endpoint without keys)"
            )
        self._model, self._key = llm.model, key
        self._client = OpenAI(
            base_url=llm.base_url,
            api_key=key,
            timeout=llm.timeout_s,
            max_retries=llm.max_retries,
        )
        self._requests = ThreadPoolExecutor(llm.requests)

    def replies(self, chats: Sequence[Chat]) -> list[Answer]:
        """An answer to each chat, in their order."""
        return list(self._requests.map(self._answer, chats))

    def _answer(self, chat: Chat) -> Answer:
        from openai import OpenAIError

        messages, params = chat
        sent: Any = {"messages": list(messages)} | {name: params[name] for name in OPENAI_PARAMS}
        try:
            answer = self._client.chat.completions.create(model=self._model, **sent)
            content = answer.choices[0].message.content
            tokens = answer.usage.completion_tokens if answer.usage else 0
        except OpenAIError as error:
            return "", f"{type(error).__name__}: {error}".replace(self._key, "..."), 0
        except (AttributeError, IndexError, TypeError):  # a reply of another form
            content, tokens = None, 0
        if not content:
            return "", "the endpoint sent a reply without content", 0
        return content, "", tokens


class FakeLlm:
    """Answers both calls without a model: fixed phrases around the prompt's own words.

    The same messages and seed have the same reply; sentences differ among seeds.
    """

    def replies(self, chats: Sequence[Chat]) -> list[Answer]:
        """An answer to each chat, in their order."""
        replies = [self.reply(*chat) for chat in chats]
        return [(reply, "", len(reply.split())) for reply in replies]

    def reply(self, messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]) -> str:
        """Reply to a chat in the form that the pattern in ``params`` asks for."""
        prompt = messages[-1]["content"]
        draw = random.Random(f"{params['seed']} {prompt}")
        words = sorted({word.lower() for word in re.findall(r"[A-Za-z]{5,}", prompt)})
        pattern = params["structured_outputs"]["regex"]
        if "rubric" in pattern:
            added = f"Mention {draw.choice(_SUBJECTS)} and {draw.choice(_PLACES)}."
            return json.dumps({"rubric": "Names differ.", "action": "Add.", "instruction": added})
        if "second" in pattern:
            return json.dumps({"first": draw.randint(1, 9), "second": draw.randint(1, 9)})
        if pattern.startswith("\\{"):
            keywords = draw.sample(words, min(4, len(words)))
            instruction = f"Ask about {', '.join(keywords)} and {draw.choice(_PLACES)}."
            return json.dumps({"keywords": keywords, "instruction": instruction})
        count = int(re.findall(r"list of (\d+)", prompt)[-1])
        sentences: dict[str, None] = {}
        while len(sentences) < count:
            sentences[
                draw.choice(_PHRASES).format(
                    subject=draw.choice(words),
                    other=draw.choice(_SUBJECTS),
                    place=draw.choice(_PLACES),
                    day=draw.choice(_DAYS),
                    number=draw.randint(2, 99),
                )
            ] = None
        return json.dumps(list(sentences))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PHRASES = (
    "What do you know about {subject} and the {other} in {place}?",
    "Tell me the {number} best facts on {subject} from {place}.",
    "When is the {other} with {subject} on {day} in {place}?",
    "How many of the {number} people in {place} like the {other} and {subject}?",
    "Find {number} words on {subject} before {day} night in {place}.",
    "Is the {other} of {subject} open in {place} on {day}?",
    "Who won the {other} for {subject} in {place} last {day}?",
    "Remind me of {subject} and the {other} at {number} past noon on {day}.",
)
_SUBJECTS = _words(
    "river bridge castle garden market library harbor museum station tower kitchen engine "
    "forest island mountain valley village window bottle candle carpet ladder mirror pillow "
    "basket hammer button pencil jacket blanket camera guitar violin trumpet dragon rabbit "
    "turtle pigeon falcon monkey "
)
_PLACES = _words(
    "Boston Denver Dallas London Paris Berlin Madrid Lisbon Vienna Prague Dublin Oslo "
    "Helsinki Tokyo Sydney Toronto Chicago Atlanta Seattle Phoenix Houston Miami Naples "
    "Geneva Athens Cairo Nairobi Lagos Lima Havana Moscow Delhi Mumbai Bangkok Manila "
    "Jakarta Melbourne Montreal Portland Memphis "
)
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday ")
