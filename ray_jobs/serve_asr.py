"""The replicas that transcribe: Ray Serve owns the model and the batching, without HTTP."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ray import serve

from das_lib.adml import Fallback, Fixed, Strategy, Transcriber, named_strategy
from das_lib.config import Config
from das_lib.models import resolve_model
from das_lib.speech.audio import Audio
from das_lib.storage import Folder

APP = "das-asr"
HEALTH_TIMEOUT_S = 600  # above the longest batch

Request = tuple[Audio, tuple[str, ...]]
"""A 16 kHz mono utterance and the systems that are to transcribe it."""


class Recognizer:
    """One replica: the base and all adapters resident, utterances decoded in batches."""

    def __init__(self, config: Config, adapters: Mapping[str, str]) -> None:
        torch.set_num_threads(max(1, int(config.serve.pool.num_cpus)))
        cache = Path(tempfile.gettempdir()) / "das-adapters"
        decode = config.decode
        self.batch_utterances = config.serve.batch_utterances
        self.transcriber = Transcriber.from_pretrained(
            resolve_model(config.asr.model),
            {
                name: Folder(url).to_local(cache / url.replace("://", "/").lstrip("/"))
                for name, url in adapters.items()
            },
            device="cuda" if config.serve.pool.num_gpus else "cpu",
            language=config.asr.language,
            precision=decode.precision,
            beams=decode.beams,
            lookahead=decode.lookahead,
            margin_s=decode.margin_s,
            fallback=Fallback(seed=config.seed) if decode.fallback else None,
        )
        self.strategies = strategies(config, list(self.transcriber.bank.names))
        batching: Any = self.transcribe
        batching.set_max_batch_size(config.serve.batch_utterances)
        batching.set_batch_wait_timeout_s(config.serve.batch_wait_s)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.05)  # replaced in __init__
    async def transcribe(self, requests: list[Request]) -> list[Any]:
        """Transcribe utterances with the systems that each asks for.

        Returns, for each utterance, its results by system or why there are none.
        """
        return await asyncio.to_thread(self._transcribe, requests)

    def _transcribe(self, requests: list[Request]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        for wanted in dict.fromkeys(systems for _, systems in requests):
            at = [i for i, (_, systems) in enumerate(requests) if systems == wanted]
            results = self.transcriber.transcribe(
                [requests[i][0] for i in at],
                {system: self.strategies[system] for system in wanted},
                batch_size=self.batch_utterances,
            )
            for i, result in zip(at, results, strict=True):
                answers[i] = result
        return answers


def strategies(config: Config, branches: list[str]) -> dict[str, Strategy]:
    """The strategy of each system: ``base``, ``lora:<domain>`` and ``das``."""
    singles = {f"lora:{name}": Fixed(i) for i, name in enumerate(branches) if i}
    together = named_strategy(config.adml.strategy, tau=config.adml.tau)
    return {"base": Fixed(0), **singles, "das": together}


@contextmanager
def replicas(config: Config, adapters: Mapping[str, Folder]) -> Iterator[None]:
    """Run the replicas of `Recognizer` as the app ``das-asr`` as long as the context lasts."""
    pool = config.serve.pool
    deployment = serve.deployment(
        name="Recognizer",
        num_replicas=pool.actors,
        max_ongoing_requests=4 * config.serve.batch_utterances,
        ray_actor_options={"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus},
        health_check_timeout_s=HEALTH_TIMEOUT_S,
    )(Recognizer)
    serve.start(proxy_location="Disabled")
    try:
        urls = {name: str(folder) for name, folder in adapters.items()}
        serve.run(deployment.bind(config, urls), name=APP, route_prefix=None)
        yield
    finally:
        serve.shutdown()
