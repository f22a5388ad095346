"""The replicas that transcribe: Ray Serve keeps them, `Batches` fills what they decode at once."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from das_lib.bulk.batches import Batches
from das_lib.config import Config
from das_lib.errors import DasError, Reject
from das_lib.memory import KEEP_FREED_MEMORY
from das_lib.models import resolve_model
from das_lib.speech.audio import Audio
from das_lib.storage import Folder
from das_lib.train.systems import LORA, Assembly, split_system
from ray_jobs.apps import ROUND_ROBIN, app_name, running

if TYPE_CHECKING:
    from das_lib.adml import Strategy

HEALTH_TIMEOUT_S = 600  # above the longest batch

Request = tuple[Audio, tuple[str, ...], bool, float | None]
"""16 kHz mono of at most 30 s, the systems that are to transcribe it, whether to time words, and
what to pad it to; see `das_lib.bulk.hear.Ask`."""


class Recognizer:
    """One replica: a model and all its adapters resident, utterances decoded in batches."""

    def __init__(self, config: Config, assembly: Assembly) -> None:
        # One thread loads and decodes: GNU OpenMP puts its workers to sleep between two products
        # as soon as a second thread has workers too, and a decode takes longer.
        self._thread = ThreadPoolExecutor(1, "decode")
        self._thread.submit(self._load, config, assembly).result()
        self._batches = Batches[Request, Any](
            self._transcribe,
            self._thread,
            size=config.serve.batch_utterances,
            wait_s=config.serve.batch_wait_s,
            kind=lambda request: request[3],
        )

    def _load(self, config: Config, assembly: Assembly) -> None:
        # Here: a driver, which imports this module, would wait for torch for seconds.
        import torch

        from das_lib.adml import Fallback, Transcriber

        torch.set_num_threads(config.serve.pool.threads)
        cache = Path(tempfile.gettempdir()) / "das-models"
        decode = config.decode
        self.batch_utterances = config.serve.batch_utterances

        def here(url: str) -> Path:
            return Folder(url).to_local(cache / url.replace("://", "/").lstrip("/"))

        model = resolve_model(config.asr.model) if assembly.model is None else here(assembly.model)
        self.transcriber = Transcriber.from_pretrained(
            model,
            {name: here(url) for name, url in assembly.adapters.items()},
            device="cuda" if config.serve.pool.num_gpus else "cpu",
            language=config.asr.language,
            precision=decode.precision,
            beams=decode.beams,
            lookahead=decode.lookahead,
            margin_s=decode.margin_s,
            fallback=Fallback(seed=config.seed) if decode.fallback else None,
        )
        for system, folder in assembly.beside.items():
            method, learnt = split_system(system)
            parts = (model, {learnt: here(folder)}) if method == LORA else (here(folder), {})
            self.transcriber.beside[system] = self.transcriber.engine.with_decoder(*parts)
        self.strategies = strategies(config, assembly)

    async def transcribe(self, request: Request) -> Any:
        """Transcribe an utterance with the systems that it asks for, in a batch with others.

        Returns columns of TRANSCRIPTS by system, or why there are none.
        """
        return await self._batches.ask(request)

    def _transcribe(self, requests: list[Request]) -> list[Any]:
        """What `transcribe` returns, for each utterance."""
        answers: list[Any] = [None] * len(requests)
        for wanted in dict.fromkeys(systems for _, systems, *_ in requests):
            at = [i for i, (_, systems, *_) in enumerate(requests) if systems == wanted]
            results = self.transcriber.transcribe(
                [requests[i][0] for i in at],
                {system: self.strategies[system] for system in wanted},
                batch_size=self.batch_utterances,
                word_times=[requests[i][2] for i in at],
                windows_s=[requests[i][3] for i in at],
            )
            for i, result in zip(at, results, strict=True):
                answers[i] = (
                    result
                    if isinstance(result, Reject)
                    else {system: found.columns(len(at)) for system, found in result.items()}
                )
        return answers


def strategies(config: Config, assembly: Assembly) -> dict[str, "Strategy"]:
    """How each system of an assembly chooses its tokens."""
    from das_lib.adml import Fixed, named_strategy

    def strategy(how: int | float | None) -> "Strategy":
        if isinstance(how, int):
            return Fixed(how)
        tau = config.adml.tau if how is None else how
        if tau == "auto":
            raise DasError("adml.tau is still auto: calibration chooses it before `das` decodes")
        return named_strategy(config.adml.strategy, tau=tau)

    return {system: strategy(how) for system, how in assembly.systems.items()}


@contextmanager
def replicas(config: Config, assembly: Assembly, owner: str, *, wait: bool = True) -> Iterator[str]:
    """The app of `Recognizer`'s replicas, which runs as long as the context lasts.

    Args:
        config: The run's.
        assembly: What they have resident.
        owner: The job's output, see `app_name`.
        wait: See `running`.
    """
    pool = config.serve.pool
    deployment = serve.deployment(
        name="Recognizer",
        num_replicas=pool.actors,
        max_ongoing_requests=4 * config.serve.batch_utterances,
        ray_actor_options={
            "num_cpus": pool.num_cpus,
            "num_gpus": pool.num_gpus,
            "runtime_env": {"env_vars": KEEP_FREED_MEMORY},
        },
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        request_router_config=RequestRouterConfig(**ROUND_ROBIN),
    )(Recognizer)
    serve.start(proxy_location="Disabled")
    app = app_name("asr", owner)
    with running(deployment.bind(config, assembly), app, wait=wait):
        yield app
