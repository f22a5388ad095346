"""The worker of bulk transcription: reads recordings, has their windows decoded, makes the rows."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from das_lib.bulk.fetch import open_recording
from das_lib.bulk.hear import HearSettings, hear, together
from das_lib.bulk.media import decode
from das_lib.bulk.recording import Recording
from das_lib.bulk.rows import to_row
from das_lib.bulk.vad import Vad
from das_lib.errors import DasError, Reject
from das_lib.rows import Outcome
from das_lib.speech.audio import Audio, AudioError
from ray_jobs.apps import await_app
from schemas.bulk import BULK_TRANSCRIPTS

TRIES = 6
"""Of a window whose replica dies or fails: about 1, 2, 4, 8 and 16 s apart."""
SUSPECT = 2
"""Tries from which on a window is sent without others that failed as often. A window that breaks
replicas takes with it those that it was decoded with; apart, they are decoded and it is found.
Until then it may take the same ones each time: n of them at once are survived by windows that
have more than n x `SUSPECT` tries."""
IN_A_ROW = 16
"""Windows that a worker may give up without one that succeeds; beyond, it is not the windows."""
QUIET_S = 1800.0
"""Longest that none of a worker's windows may be answered: several times the longest batch, and
enough to start replicas. Serve itself waits for replicas for ever."""
BLOCKS_AT_ONCE = 2
"""Blocks that a worker has begun: the next one's recordings are read while the last windows of the
one before are decoded. Workers whose blocks are alike would else run dry all at once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """How recordings are heard and what stands in every row."""

    settings: HearSettings
    vad: bool
    system: str
    branches: tuple[str, ...]
    language: str
    model: str
    adapters: tuple[str, ...]
    windows_at_once: int


class BulkFeed:
    """`AsyncWork`: rows of RECORDINGS to rows of BULK_TRANSCRIPTS."""

    def __init__(self, app: str, listener: Listener) -> None:
        """Work for the replicas of ``app``."""
        self.listener = listener
        self.vad = Vad.from_package() if listener.vad else None
        self.app, self.replicas = app, serve.get_app_handle(app)
        self.start, self.started = asyncio.Lock(), False
        self.heard, self.given_up = 0.0, 0
        # First come, first served: a block's recordings are begun before the next block's.
        self.room = asyncio.Semaphore(listener.windows_at_once)
        # As many recordings as windows: where each is one window, fewer would not fill the batches.
        self.turn = asyncio.Semaphore(listener.windows_at_once)
        self.alone = asyncio.Lock()

    async def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Work on a block; its one output gets the outcome.

        Raises:
            DasError: the replicas cannot start, fail with every window, or do not answer.
        """
        (output,) = outputs
        recordings = [Recording(**row) for row in rows.to_pylist()]
        async with together() as tasks:
            hearing = [tasks.create_task(self._one(recording)) for recording in recordings]
        made = [task.result() for task in hearing]
        good = [row for row in made if not isinstance(row, Reject)]
        transcripts = pa.Table.from_pylist(good, schema=BULK_TRANSCRIPTS)
        rejects = [row for row in made if isinstance(row, Reject)]
        return {output: Outcome(transcripts, rejects, sum(row["duration_s"] for row in good))}

    async def _one(self, recording: Recording) -> dict[str, Any] | Reject:
        listener = self.listener
        async with self.turn:
            started = time.monotonic()
            try:
                file = await asyncio.to_thread(open_recording, recording)
                try:
                    heard = await hear(
                        decode(
                            file,
                            start_s=recording.start_s,
                            duration_s=recording.duration_s,
                            channel=recording.channel,
                        ),
                        self._ask,
                        listener.settings,
                        self.vad,
                        self.room,
                        id=recording.id,
                        branches=listener.branches,
                        language=listener.language,
                    )
                finally:
                    file.close()
            except AudioError as error:
                return Reject(recording.id, error.reason, error.detail)
            return to_row(
                heard,
                model=listener.model,
                adapters=listener.adapters,
                seconds=time.monotonic() - started,
            )

    async def _ask(
        self, audio: Audio, times: bool, window_s: float | None
    ) -> Mapping[str, Any] | Reject:
        """A window's answer; where a replica dies or fails, another is asked.

        Ray answers in these ways for a replica that gives none, and `TRIES` counts them alike:

            ActorDiedError          its process died, or Serve ended it because it hung
            ActorUnavailableError   its node died, or the network between
            ObjectLostError         so did the node that held the answer
            RayTaskError            it lives; the engine raised, for want of memory or by mistake

        While no replica runs, Serve holds the window back; while its controller restarts, replicas
        go on without it. Neither fails.

        Raises:
            DasError: the replicas fail with every window, or none has answered for `QUIET_S`.
        """
        system, failed = self.listener.system, 0
        await self._replicas_started()
        while True:
            try:
                # Not during the pauses: suspects would wait for each other's.
                async with self.alone if failed >= SUSPECT else nullcontext():
                    answer = await self._answer((audio, (system,), times, window_s))
            except (RayError, RayServeException) as error:
                failed += 1
                logger.info("a replica failed, window asked for again: %s", error)
                if failed == TRIES:
                    return self._given_up(error)
                # Jitter: else the windows of a batch come back as the same batch.
                await asyncio.sleep(2.0 ** (failed - 1) * random.uniform(0.5, 1.0))
            else:
                self.given_up = 0
                return answer if isinstance(answer, Reject) else answer[system]

    async def _replicas_started(self) -> None:
        """Return when the replicas are there: what they will decode first is read while they start.

        Raises:
            DasError: they cannot start.
        """
        async with self.start:
            if not self.started:
                await asyncio.to_thread(await_app, self.app)
                self.started = True

    async def _answer(self, request: tuple[Audio, tuple[str, ...], bool, float | None]) -> Any:
        """What a replica answers.

        Raises:
            DasError: none has answered anything for `QUIET_S`.
            RayError: see `_ask`.
        """
        answer = asyncio.ensure_future(self.replicas.transcribe.remote(request))
        asked = time.monotonic()
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=QUIET_S / 10)
                if time.monotonic() - max(asked, self.heard) > QUIET_S and not answer.done():
                    raise DasError(
                        f"no replica has answered for {QUIET_S / 60:.0f} min; see `serve status` "
                        "and Serve's log for why, then run the same command: it resumes"
                    )
            self.heard = time.monotonic()
            return answer.result()
        finally:
            answer.cancel()

    def _given_up(self, error: Exception) -> Reject:
        """The rejection of a window that no replica decodes.

        Raises:
            DasError: it is not the window's fault.
        """
        self.given_up += 1
        text = _last_line(error)
        if self.given_up > IN_A_ROW:
            raise DasError(
                f"the replicas failed {TRIES} times each with {self.given_up} windows in a row, "
                f"the last time: {text}; if it is for want of memory, lower "
                "serve.batch_utterances, then run the same command: it resumes"
            ) from error
        lives = isinstance(error, RayTaskError)
        reason = "replica-failed" if lives else "replica-died"
        return Reject("", reason, f"{TRIES} times with this: {text}")


def _last_line(error: BaseException) -> str:
    """What a person needs of an error: Ray's texts begin with traces and tables."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:300]
