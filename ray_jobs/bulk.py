"""Bulk transcription: a corpus of any size to transcripts, each recording exactly once.

python -m ray_jobs.transcribe INPUT OUTPUT --config configs/demo.yaml

    OUTPUT/recordings/    what was listed, in blocks; a corpus that grew adds blocks
    OUTPUT/transcripts/   a file for each block; its presence is the commit
    OUTPUT/<format>/      the same in other forms, on demand
    OUTPUT/summary.json   what went in and came out
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import ray.data

from das_lib.bulk.corpus import add_recordings
from das_lib.bulk.export import Export
from das_lib.bulk.formats import FORMATS
from das_lib.bulk.hear import HearSettings
from das_lib.bulk.sources import list_recordings
from das_lib.bulk.summary import summarise
from das_lib.bulk.windows import WindowSettings
from das_lib.config import Config
from das_lib.config.section import Pool
from das_lib.dataset import Dataset, open_parquet
from das_lib.errors import DasError
from das_lib.progress import format_seconds
from das_lib.storage import Folder, file_hash
from das_lib.train.systems import BASE, DAS, Assembly
from ray_jobs.apps import since_running
from ray_jobs.bulk_feed import BLOCKS_AT_ONCE, BulkFeed, Listener
from ray_jobs.calibrate import with_tau
from ray_jobs.flow import Item, pending_items, run_items
from ray_jobs.run import Run, versions
from ray_jobs.runtime import job_path, ray_session
from ray_jobs.serve_asr import replicas
from schemas.bulk import BULK_TRANSCRIPTS, EXPORTS, RECORDINGS

NONE = "none"
WEIGHTS = "adapter_model.safetensors"
AHEAD = 4
"""Windows on their way to each replica, in batches: one is decoded, one waits, others are read."""
LONGEST_BLOCK_S = 86_400
"""Beyond, a block is taken to be stuck."""


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """One corpus, one output, and how the one becomes the other."""

    config: Config
    source: str
    output: Folder
    adapters: Mapping[str, str]
    """Folders of the adapters that decode together, by name."""
    formats: Sequence[str] = ()
    retry: Sequence[str] = ()
    """Reasons of rejections to try again."""

    @property
    def recordings(self) -> Dataset:
        """What was listed."""
        return Dataset(self.output / "recordings", RECORDINGS, "recordings", "corpus")

    @property
    def transcripts(self) -> Dataset:
        """What was heard."""
        return Dataset(self.output / "transcripts", BULK_TRANSCRIPTS, "transcripts", "corpus")

    @property
    def system(self) -> str:
        """What transcribes."""
        return DAS if self.adapters else BASE

    @property
    def labels(self) -> tuple[str, ...]:
        """Names and versions of the adapters."""
        items = self.adapters.items()
        return tuple(f"{name}@{file_hash(f'{url}/{WEIGHTS}')}" for name, url in items)

    def settings(self) -> dict[str, Any]:
        """What determines the transcripts, for one output holds those of one way to hear alone."""
        config = self.config
        transcribe = config.transcribe.model_dump(
            include={"vad", "speech_threshold", "word_times"}, mode="json"
        )
        return {
            "source": self.source,
            "model": config.asr.model,
            "language": config.asr.language,
            "adapters": list(self.labels),
            "adml": config.adml.model_dump(mode="json"),
            "decode": config.decode.model_dump(mode="json"),
            "transcribe": transcribe,
        }


def plan_bulk(
    config: Config,
    source: str,
    output: str,
    adapters: str | None,
    formats: Sequence[str],
    retry: Sequence[str] = (),
) -> Bulk:
    """What a command line asks for.

    Args:
        config: The run whose adapters these are.
        source: See `list_recordings`.
        output: A folder.
        adapters: See `choose_adapters`.
        formats: Some of `FORMATS`.
        retry: Reasons of rejections to try again.

    Raises:
        DasError: an adapter is unknown or not trained yet, or a format is unknown or cannot be.
    """
    for name in formats:
        if name not in FORMATS:
            raise DasError(f"--format: {name!r} is unknown; give some of {', '.join(FORMATS)}")
    if "ctm" in formats and not config.transcribe.word_times:
        raise DasError("--format ctm needs the times of words; add --word-times")
    run = Run(config)
    folders = choose_adapters(run, adapters)
    return Bulk(
        config=with_tau(run) if folders else config,
        # One name for it, with or without a slash behind it: the output remembers its source.
        source=Folder(job_path(source)).url if source else source,
        output=Folder(job_path(output)),
        adapters=folders,
        formats=tuple(dict.fromkeys(formats)),
        retry=tuple(retry),
    )


def choose_adapters(run: Run, wanted: str | None) -> dict[str, str]:
    """Folders of adapters by name.

    Args:
        run: The run that trained the domains' adapters.
        wanted: Names of domains and ``name=folder`` of others, by commas; ``none``: no adapter;
            None: all domains of the configuration.

    Raises:
        DasError: one is unknown or not trained yet.
    """
    if wanted == NONE:
        return {}
    domains = [domain.name for domain in run.config.domains]
    found = {}
    for item in wanted.split(",") if wanted is not None else domains:
        name, given, folder = item.partition("=")
        if given and name not in (BASE, ""):
            found[name] = job_path(folder)
        elif item in domains:
            # The plan reads the domains' texts, which adapters from elsewhere do not need.
            found[item] = str(run.source(run.plan.adapters[item]).folder / "adapter")
        else:
            raise DasError(
                f"--adapters: {item!r} is none of the domains {', '.join(domains)}; name some of "
                "them, NAME=FOLDER for a PEFT folder of your own, or none"
            )
    return found


def transcribe_corpus(bulk: Bulk) -> dict[str, Any]:
    """List what is new, transcribe what is missing, write the forms that are missing.

    Returns:
        The summary, as ``summary.json`` has it.

    Raises:
        DasError: the input cannot be listed, or the output holds transcripts made in another way.
    """
    started = time.monotonic()
    bulk.output.require_writable()
    recordings, transcripts = bulk.recordings, bulk.transcripts
    listing = list_recordings(bulk.source)
    first = next(listing)  # raises for a mistyped INPUT, before the output remembers it
    _begin(bulk)
    per_block = bulk.config.transcribe.recordings_per_block
    added = add_recordings(chain([first], listing), recordings, per_block)
    skipped = f", {listing.skipped} other files skipped" if listing.skipped else ""
    print(f"recordings   {added} new{skipped}", file=sys.stderr, flush=True)
    todo = pending_items({"corpus": recordings}, {"corpus": transcripts}) + _again(bulk)
    decoding = 0.0
    # Ray takes seconds to start: not for nothing.
    session = partial(ray_session, bulk.config, bulk=True)
    with session() if todo or _to_export(bulk) else nullcontext():
        if todo:
            decoding = _decode(bulk, todo)
        if items := _to_export(bulk):
            _export(bulk, items)
    summary = summarise(recordings, transcripts)
    wall = time.monotonic() - started
    done = sum(len(item.again) or item.block.num_rows for item in todo)
    summary |= {
        "this_run": {"recordings": done, "wall_s": wall, "decoding_s": decoding},
        "settings": bulk.settings(),
        "versions": versions(),
    }
    bulk.output.write_json("summary.json", summary)
    return summary


def tell(summary: Mapping[str, Any], output: Folder) -> None:
    """The summary for people, on standard error."""
    run = summary["this_run"]
    line = f"transcripts  {summary['out']} of {summary['in']} recordings"
    line += f", {summary['audio_hours']:.2f} h of audio"
    if summary["rejected"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
        line += f", {summary['rejected']} rejected ({reasons})"
    print(
        f"{line}, {format_seconds(run['wall_s'])}\n{output.path('summary.json')}", file=sys.stderr
    )


def _again(bulk: Bulk) -> list[Item]:
    """Recordings to try again; their blocks' forms are written anew."""
    if not bulk.retry:
        return []
    rejected = bulk.transcripts.rejected(bulk.retry)
    count = sum(map(len, rejected.values()))
    print(f"recordings   {count} to try again", file=sys.stderr, flush=True)
    # Of all forms, not just those of this call: another asks for them again.
    for format, index in _indexes(bulk, tuple(FORMATS)).items():
        for name in (f"{block}.parquet" for block in rejected):
            if index.data.exists(name):
                listed = open_parquet(index.data.path(name)).read(["file"])
                index.data.remove(name)
                for file in listed["file"].unique().to_pylist():
                    (bulk.output / format).remove(file)
    return [
        Item(block, ("corpus",), frozenset(rejected[block.name]))
        for block in bulk.recordings.blocks()
        if block.name in rejected
    ]


def _begin(bulk: Bulk) -> None:
    """Record how the output is made, or check that it was made like this before."""
    settings, folder = bulk.settings(), bulk.transcripts.folder
    if not folder.exists("config.json"):
        bulk.transcripts.begin(settings)
        return
    before, now = _flat(folder.read_json("config.json")), _flat(settings)
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise DasError(
            f"{bulk.output} holds transcripts with another {key}: {before.get(key)!r}, now "
            f"{now[key]!r}; give another OUTPUT, or the settings of before"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names, as ``--set`` has them."""
    flat = {}
    for name, value in settings.items():
        named = {f"{name}.{key}": one for key, one in value.items()} if type(value) is dict else {}
        flat |= named or {name: value}
    return flat


def _decode(bulk: Bulk, todo: list[Item]) -> float:
    config, transcribe = bulk.config, bulk.config.transcribe
    in_flight = AHEAD * config.serve.batch_utterances * config.serve.pool.actors
    listener = Listener(
        settings=HearSettings(
            windows=WindowSettings(threshold=transcribe.speech_threshold),
            word_times=transcribe.word_times,
        ),
        vad=transcribe.vad,
        system=bulk.system,
        branches=(BASE, *bulk.adapters),
        language=config.asr.language or "en",
        model=config.asr.model,
        adapters=bulk.labels,
        windows_at_once=max(2, -(-in_flight // transcribe.readers)),
    )
    assembly = Assembly(None, bulk.adapters, {bulk.system: None if bulk.adapters else 0})
    # A block may be hours of sound; the workers themselves see when replicas no longer answer.
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = LONGEST_BLOCK_S
    # Readers and replicas start side by side: each takes seconds to import what it needs.
    with replicas(config, assembly, str(bulk.output), wait=False) as app:
        decoding_s = since_running(app)
        run_items(
            "transcripts",
            todo,
            partial(BulkFeed, app, listener),
            {"corpus": bulk.transcripts},
            Pool(actors=transcribe.readers, num_cpus=transcribe.reader_cpus),
            unit="recordings",
            overlap=BLOCKS_AT_ONCE,
        )
        return decoding_s()


def _export(bulk: Bulk, items: list[Item]) -> None:
    folders = {name: bulk.output / name for name in bulk.formats}
    pool = Pool(actors=bulk.config.transcribe.readers, num_cpus=bulk.config.transcribe.reader_cpus)
    make = partial(Export, folders)
    run_items("exports", items, make, _indexes(bulk, bulk.formats), pool, unit="transcripts")


def _to_export(bulk: Bulk) -> list[Item]:
    indexes = _indexes(bulk, bulk.formats)
    return pending_items(dict.fromkeys(indexes, bulk.transcripts), indexes)


def _indexes(bulk: Bulk, formats: Sequence[str]) -> dict[str, Dataset]:
    """Which file holds which transcript, by format."""
    folder = bulk.output / "exports"
    return {name: Dataset(folder / name, EXPORTS, "exports", name) for name in formats}
