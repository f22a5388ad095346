"""Algorithm 1 on a GPU: passes that are recorded, selection on the device, no waiting between.

Every pass works on the same tensors, so an utterance that has ended stays in the batch until all
have: its rows cost a GPU little, and what it goes on to say is not kept.

Shape suffixes: B utterances, N branches, T prompt tokens or steps, S encoder frames, D model width,
X columns of what a pass says.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from das_lib.adml.checkpoint import Checkpoint
from das_lib.adml.gpu.branches import BranchDecoder, Cache
from das_lib.adml.gpu.record import filled, record
from das_lib.adml.select import Rule, Strategy
from das_lib.adml.trace import Trace

if TYPE_CHECKING:
    from das_lib.adml.engine import Engine

ROOM = 64
"""Positions that the first passes read of the caches; each next size has twice as many."""
KEPT = 64
"""Replays; their caches are shared, a few megabytes are their own."""
_TOKEN, _BRANCH, _RULE, _LOGPROB, _CONFIDENCE = range(5)
"""Columns of what a pass says, the confidences of all branches last."""
_RULES = dict(enumerate(Rule))


class Replays:
    """What an engine has recorded, for every kind of decode that was asked for."""

    def __init__(self, engine: "Engine", model: Checkpoint) -> None:
        self._engine, self._model = engine, model
        self._pool = torch.cuda.graph_pool_handle() if engine.device.type == "cuda" else None
        self._forget()

    def _forget(self) -> None:
        self._revision = self._engine.bank.revision
        self._decoders: dict[tuple[int, ...], BranchDecoder] = {}
        self._caches: dict[object, Cache] = {}
        self._replays: dict[object, Replay] = {}

    @torch.inference_mode()
    def decode(
        self,
        h_BSD: torch.Tensor,
        languages: Sequence[str],
        strategy: Strategy,
        columns: tuple[int, ...],
    ) -> list[Trace]:
        """Decode as `Engine.decode` does, from the encoder's features.

        Args:
            h_BSD: The features.
            languages: Of each utterance.
            strategy: One that is ``static``.
            columns: The branches that run.
        """
        if self._revision != self._engine.bank.revision:
            self._forget()
        key = (columns, strategy, filled(len(languages)), h_BSD.shape[1])
        if key not in self._replays:
            while len(self._replays) >= KEPT:
                del self._replays[next(iter(self._replays))]
            self._replays[key] = self._record(*key)
        return self._replays[key].decode(h_BSD, languages)

    def _record(
        self, columns: tuple[int, ...], strategy: Strategy, batch: int, frames: int
    ) -> "Replay":
        engine = self._engine
        if columns not in self._decoders:
            self._decoders[columns] = BranchDecoder(
                engine.decoder, self._model, engine.bank, columns
            )
        decoder = self._decoders[columns]
        rooms = [ROOM]
        while rooms[-1] < engine.capacity:
            rooms.append(2 * rooms[-1])
        size = (batch, frames, len(columns), decoder.own_keys)
        if size not in self._caches:
            self._caches[size] = decoder.cache(batch, frames, rooms[-1])
        return Replay(
            engine, decoder, self._caches[size], strategy, columns, rooms=rooms, pool=self._pool
        )


class Replay:
    """The passes over up to B utterances x N branches under one strategy."""

    def __init__(
        self,
        engine: "Engine",
        decoder: BranchDecoder,
        cache: Cache,
        strategy: Strategy,
        columns: tuple[int, ...],
        *,
        rooms: Sequence[int],
        pool: Any,
    ) -> None:
        device, batch = engine.device, len(cache.h_BSD)
        self._engine, self._prompts, self._columns = engine, engine.prompts, columns
        self._decoder, self._cache, self._strategy = decoder, cache, strategy
        self._prompt_BT = self._prompts.build([self._prompts.any_language] * batch)
        self._prompt_positions_T = torch.arange(self._prompts.length, device=device)
        self._token_B1 = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._position_1 = torch.full((1,), self._prompts.length, device=device)
        steps = engine.capacity - self._prompts.length + 1
        self._said_BX = torch.zeros(batch, _CONFIDENCE + len(columns), device=device)
        self._heard = _Heard(steps, self._said_BX)
        self._first = record(partial(self._begin, rooms[0]), device, pool)
        self._later = {
            room: record(partial(self._go_on, room), device, pool)
            for room in (rooms[-1:] if decoder.any_room else rooms)
        }

    def decode(self, h_BSD: torch.Tensor, languages: Sequence[str]) -> list[Trace]:
        """See `Replays.decode`."""
        count = len(languages)
        self._strategy.needs(self._columns)  # a strategy that counts its steps begins anew
        self._cache.h_BSD[:count, : self._cache.frames].copy_(h_BSD)
        self._prompt_BT[:count].copy_(self._prompts.build(languages))
        self._first()
        self._heard.ask(0, self._said_BX)
        ended_B, step = np.zeros(count, dtype=bool), 0
        for step in range(self._heard.steps):
            position = self._prompts.length + step
            if step + 1 < self._heard.steps:
                # The GPU goes on while the host reads: one pass more than needed, no gaps.
                self._later[next(room for room in self._later if position < room)]()
                self._heard.ask(step + 1, self._said_BX)
            tokens_B = self._heard.wait(step)[:count, _TOKEN]
            ended_B |= np.isin(tokens_B, list(self._prompts.end))
            if ended_B.all():
                break
        said_BTX = self._heard.all(step + 1)[:, :count].swapaxes(0, 1)
        return [
            _trace(self._columns, language, said_TX, self._prompts.end)
            for language, said_TX in zip(languages, said_BTX, strict=True)
        ]

    def _begin(self, room: int) -> None:
        self._decoder.read(self._cache)
        self._position_1.fill_(self._prompts.length)
        x_NBD = self._decoder.forward(self._cache, self._prompt_BT, self._prompt_positions_T, room)
        self._choose(x_NBD, first=True)

    def _go_on(self, room: int) -> None:
        x_NBD = self._decoder.forward(self._cache, self._token_B1, self._position_1, room)
        self._position_1 += 1
        self._choose(x_NBD, first=False)

    def _choose(self, x_NBD: torch.Tensor, *, first: bool) -> None:
        scores = self._engine.vocabulary(first).scores(x_NBD)
        choice = self._strategy.choose(scores)
        token_B1 = choice.token_B.unsqueeze(1)
        self._token_B1.copy_(token_B1)
        why = (choice.branch_B, choice.rule_B, choice.logprob_B)
        # Every token is a float32 exactly.
        said_BX = torch.cat([token_B1, *(x_B.unsqueeze(1) for x_B in why), scores.c_BN], 1)
        self._said_BX.copy_(said_BX)


class _Heard:
    """What passes said, on its way to the host and there."""

    def __init__(self, steps: int, like_BX: torch.Tensor) -> None:
        self.steps = steps
        self._on_gpu = like_BX.device.type == "cuda"
        self._said_TBX = torch.zeros(steps, *like_BX.shape, pin_memory=self._on_gpu)
        self._arrived = [torch.cuda.Event() for _ in range(steps if self._on_gpu else 0)]

    def ask(self, step: int, said_BX: torch.Tensor) -> None:
        """Send a step's, without waiting for it."""
        self._said_TBX[step].copy_(said_BX, non_blocking=True)
        if self._on_gpu:
            self._arrived[step].record()

    def wait(self, step: int) -> np.ndarray:
        """A step's. [B, X]."""
        if self._on_gpu:
            self._arrived[step].synchronize()
        return self._said_TBX[step].numpy()

    def all(self, steps: int) -> np.ndarray:
        """Of the first steps, all of which have been waited for. [T, B, X]."""
        return self._said_TBX[:steps].numpy().copy()


def _trace(
    columns: tuple[int, ...], language: str, said_TX: np.ndarray, end: Collection[int]
) -> Trace:
    """What was said about one utterance, up to its end."""
    ends = np.flatnonzero(np.isin(said_TX[:, _TOKEN], list(end)))
    said_TX = said_TX[: ends[0] + 1] if len(ends) else said_TX
    trace = Trace(columns, language)
    tokens, branch, rule = said_TX[:, :_LOGPROB].T.astype(np.int64).tolist()
    trace.tokens, trace.branch = tokens, [columns[i] for i in branch]
    trace.rule = [_RULES[i] for i in rule]
    trace.logprob = said_TX[:, _LOGPROB].tolist()
    trace.confidence = list(said_TX[:, _CONFIDENCE:])
    return trace
