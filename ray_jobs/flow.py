"""Blocks of one dataset through a pool of workers into blocks of others, committed once.

Ray Data carries descriptions of blocks, not rows: each worker reads its block, works on it and
commits the result under the block's own name. That keeps every CPU for the workers (a reading
operator beside a full pool hangs without an error, ray#44687), makes the block the unit of retry
and of commit, and leaves a resumed run exactly the blocks without a file.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from das_lib.config.tree import Pool
from das_lib.dataset import Block, Dataset, read_block
from das_lib.progress import Progress
from das_lib.rows import Outcome, Process
from ray_jobs import metrics

logger = logging.getLogger(__name__)

MAX_GROWTH = 2 << 30
"""Bytes by which a worker may grow over its size after its first block; beyond, it is started anew.
Engines that leak a little at each call would otherwise fill a node in a long night."""

SLOW_S = 2.0
PAUSE_S = 0.4
"""What `Unhurried` adds to each look around once no block has been finished for `SLOW_S`."""

STATS = pa.schema([("rows", pa.int64()), ("rejected", pa.int64()), ("amount", pa.float64())])


class Work(Protocol):
    """A stage's work on one block: an outcome for each output that the block still lacks."""

    def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Work on ``rows``."""
        ...


class AsyncWork(Protocol):
    """`Work` that has several blocks at a time, in one event loop."""

    async def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Work on ``rows``."""
        ...


class OneOutput:
    """A `Process` as `Work`: the block's single output gets its outcome."""

    def __init__(self, make: Callable[[], Process]) -> None:
        self.process = make()

    def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Work on ``rows``."""
        (output,) = outputs
        return {output: self.process(rows)}


@dataclass(frozen=True, slots=True)
class Item:
    """A block and the outputs that still lack it."""

    block: Block
    outputs: tuple[str, ...]
    again: frozenset[str] = frozenset()
    """Ids of the rows to work on, where the one output has the block and rejected these."""


class _Blocks:
    """What an actor of a pool does besides its work."""

    def __init__(
        self,
        make: Callable[[], Any],
        outputs: Mapping[str, Dataset],
        num_threads: int,
        max_growth: int,
    ) -> None:
        self.work, self.outputs = make(), outputs
        if "torch" in sys.modules:  # not every stage needs it, and it takes seconds to import
            sys.modules["torch"].set_num_threads(num_threads)
        self.max_growth, self.size = max_growth, 0

    def read(self, batch: pa.Table) -> tuple[dict[str, Any], pa.Table]:
        """The block that the batch's one row describes."""
        if self.size and resident_bytes() - self.size > self.max_growth:
            os._exit(0)  # nothing is lost: Ray starts the actor anew and gives it this block again
        (item,) = batch.to_pylist()
        rows = read_block(item["path"], item["row_group"])
        if item["again"]:
            rows = rows.filter(pc.field("id").isin(item["again"]))
        return item, rows

    def commit(
        self, item: Mapping[str, Any], num_rows: int, outcomes: Mapping[str, Outcome]
    ) -> pa.Table:
        """What came of it, and its statistics."""
        for output in item["outputs"]:
            dataset, outcome = self.outputs[output], outcomes[output]
            kept = dataset.without(item["name"], item["again"]) if item["again"] else None
            dataset.commit(item["name"], outcome if kept is None else kept + outcome)
            metrics.count(dataset, outcome, "audio_seconds")
        self.size = self.size or resident_bytes()
        return pa.table(
            {
                "rows": [num_rows],
                "rejected": [sum(len(o.rejects) for o in outcomes.values())],
                "amount": [sum(o.amount for o in outcomes.values())],
            },
            schema=STATS,
        )


class BlockWorker(_Blocks):
    """The actor of a pool, one block at a time."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read, work on and commit a block."""
        item, rows = self.read(batch)
        return self.commit(item, rows.num_rows, self.work(rows, item["outputs"]))


class AsyncBlockWorker(_Blocks):
    """The actor of a pool that has several blocks at a time."""

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Read, work on and commit a block."""
        item, rows = await asyncio.to_thread(self.read, batch)
        outcomes = await self.work(rows, item["outputs"])
        return await asyncio.to_thread(self.commit, item, rows.num_rows, outcomes)


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Unhurried(ExecutionCallback):
    """Has Ray Data's executor look around twice a second, and not ten times, while blocks are slow.

    At each look it asks actors of its own for their state, and all that takes cores that compute.
    Workers are given a block in advance, so none waits for the next look.
    """

    finished = 0.0
    """When the last block was."""

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each look around."""
        if time.monotonic() - Unhurried.finished > SLOW_S:
            time.sleep(PAUSE_S)


def run_items(
    stage: str,
    items: Iterable[Item],
    make: Callable[[], Work | AsyncWork],
    outputs: Mapping[str, Dataset],
    pool: Pool,
    *,
    unit: str = "utterances",
    max_growth: int = MAX_GROWTH,
    overlap: int | None = None,
) -> None:
    """Work through ``items`` with ``pool.actors`` workers.

    With ``overlap``, ``make`` gives `AsyncWork` and each worker has so many blocks at a time.

    Raises:
        Exception: whatever a worker raised; blocks committed so far stay committed.
    """
    todo = list(items)
    total = sum(len(item.again) or item.block.num_rows for item in todo)
    with Progress(stage, total, unit) as progress:
        if not todo:
            return
        rows: list[dict[str, Any]] = [
            {
                "name": item.block.name,
                "path": item.block.path,
                "row_group": item.block.row_group,
                "outputs": list(item.outputs),
                "again": sorted(item.again),
            }
            for item in todo
        ]
        stats = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            BlockWorker if overlap is None else AsyncBlockWorker,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.actors, len(rows)), max_concurrent_calls_per_actor=overlap
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            fn_constructor_args=(make, dict(outputs), pool.threads, max_growth),
        )
        stats.context.custom_execution_callback_classes = [Unhurried]  # of this dataset alone
        rejected, amount = 0, 0.0
        for row in stats.iter_rows():
            Unhurried.finished = time.monotonic()
            rejected += row["rejected"]
            amount += row["amount"]
            note = f"{amount / progress.seconds:.1f} s of audio/s" if amount else ""
            note += f"  {rejected} rejected" if rejected else ""
            progress.advance(row["rows"], note)


def pending_items(sources: Mapping[str, Dataset], outputs: Mapping[str, Dataset]) -> list[Item]:
    """Blocks of each source that the output of the same key lacks."""
    items = []
    for key, output in outputs.items():
        done = output.committed()
        items += [Item(b, (key,)) for b in sources[key].blocks() if b.name not in done]
    return items
