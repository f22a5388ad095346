"""`das serve`: the replicas behind OpenAI's transcription API, until it is stopped."""

import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

from das_lib.bulk.api import Limits
from das_lib.bulk.hear import HearSettings
from das_lib.bulk.windows import WindowSettings
from das_lib.config import Config
from das_lib.train.systems import BASE, DAS, LORA, assemblies, system_name
from ray_jobs.apps import running
from ray_jobs.bulk import choose_adapters
from ray_jobs.calibrate import with_tau
from ray_jobs.listen import FRONT, Setup, front, start_http
from ray_jobs.run import Run
from ray_jobs.runtime import ray_session
from ray_jobs.serve_asr import replicas


def serve_api(
    config: Config, adapters: str | None, host: str, port: int, token: str | None
) -> None:
    """Serve until the process is told to end; what was accepted is answered first.

    Args:
        config: The run whose adapters these are.
        adapters: See `choose_adapters`.
        host: Where to listen.
        port: Likewise.
        token: What clients must know; None is for the loopback interface alone.

    Raises:
        DasError: the server would be open to others, the port is taken, or an adapter is missing.
    """
    run = Run(config)
    folders = choose_adapters(run, adapters)
    config = with_tau(run) if folders else config
    limits = Limits()
    with ray_session(config):
        start_http(host, port, token, limits)
        assembly = assemblies(folders, {})[0]
        names = model_names(folders)
        with replicas(config, assembly.only(names.values()), FRONT) as asr:
            setup = Setup(
                replicas=asr,
                models=names,
                branches=(BASE, *folders),
                limits=limits,
                token=token,
                language=config.asr.language,
                settings=HearSettings(
                    windows=WindowSettings(threshold=config.transcribe.speech_threshold)
                ),
                vad=config.transcribe.vad,
            )
            app = front(setup, num_cpus=config.transcribe.reader_cpus)
            with running(app, FRONT, "/"):
                line = f"serving      http://{host}:{port}/v1  models: {', '.join(names)}"
                print(line, file=sys.stderr, flush=True)
                _wait()


def model_names(adapters: Mapping[str, str]) -> dict[str, str]:
    """What ``model`` may be, and the system that it means."""
    if not adapters:
        return {BASE: BASE}
    return {DAS: DAS, BASE: BASE, **{name: system_name(LORA, name) for name in adapters}}


def _wait() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with suppress(KeyboardInterrupt):
        ended.wait()
    print("serving      ending", file=sys.stderr, flush=True)
