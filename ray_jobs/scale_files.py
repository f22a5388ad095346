"""`das bench files`: `das transcribe` on very many short files, with a tiny random Whisper.

The command is the real one, on a cluster of two raylets on this machine. Each file is listed, read,
decoded by a replica and written; only the model is so small that the pipeline is what is measured.
"""

import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from das_lib.config import Config, load_config
from das_lib.config.data import Tts
from das_lib.dataset import open_parquet
from das_lib.speech.audio import Audio
from das_lib.speech.tts import FakeSynthesizer
from das_lib.testing import tiny_whisper
from ray_jobs.bulk import plan_bulk
from ray_jobs.bulk_feed import BLOCKS_AT_ONCE
from ray_jobs.cluster import Cluster
from ray_jobs.measured import SENTENCES, sentences, steady_rate
from ray_jobs.measured_transcribe import write_corpus
from ray_jobs.scale import Chaos, flatness

CONTENTS = 64
LONGEST = 16_000  # samples: a window of the tiny Whisper
UNDISTURBED = (0.0, 0.0)


def measure_files(counts: list[int]) -> list[dict[str, Any]]:
    """A row for each corpus of ``counts`` files."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="das-") as folder, Cluster(Path(folder)) as cluster:
            path = _config(Path(folder))
            corpus = Path(folder) / "corpus"
            write_corpus(_tones(), count, corpus)
            chaos = Chaos(cluster, 0, random.Random(0), *UNDISTURBED)
            rows.append(measure_corpus(path, corpus, chaos))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their rate over the median rate of those with the fewest files."""
    fewest = min(row["files"] for row in rows)
    rate = statistics.median(row["files_per_s"] for row in rows if row["files"] == fewest)
    return [row | {"ratio": row["files_per_s"] / rate} for row in rows]


def measure_corpus(config: Path, corpus: Path, chaos: Chaos) -> dict[str, Any]:
    """Transcribe a corpus; how fast, in how much memory, and what became of its files."""
    output = corpus.parent / "out"
    command = [sys.executable, "-m", "ray_jobs.cli", "transcribe", str(corpus), str(output)]
    total = chaos.run([*command, "-c", str(config), "--adapters", "none"])
    return {
        "files": sum(len(names) for _, _, names in os.walk(corpus)),
        "total_s": total,
        **flatness(chaos.memory),
        **_written(load_config(config), corpus, output),
    }


def _tones() -> list[Audio]:
    voice = FakeSynthesizer(Tts(engine="fake"))
    return [voice.speak(text)[:LONGEST] for text in sentences(CONTENTS)]


def _config(folder: Path) -> Path:
    model = tiny_whisper(folder / "tiny", max_target_positions=16)
    tree = {
        "name": "files",
        "output": str(folder / "run"),
        "domains": [{"name": "none", "utterances": 2, "texts": str(SENTENCES)}],
        "asr": {"model": str(model), "language": "en"},
        # Tones are no speech: everything is decoded.
        "transcribe": {"vad": False},
        "serve": {"pool": {"num_cpus": 1}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _written(config: Config, corpus: Path, output: Path) -> dict[str, Any]:
    bulk = plan_bulk(config, str(corpus), str(output), "none", ())
    commits, ids = [], []
    for path in bulk.transcripts.files():
        block = open_parquet(path).read(["id"])["id"].to_pylist()
        commits.append((Path(path).stat().st_mtime, float(len(block))))
        ids += block
    summary = json.loads((output / "summary.json").read_text())
    return {
        "files_per_s": steady_rate(commits, config.transcribe.readers * BLOCKS_AT_ONCE),
        "unique": len(set(ids)),
        "twice": len(ids) - len(set(ids)),
        "rejected": summary["rejected"],
        "missing": summary["in"] - summary["rejected"] - len(set(ids)),
        "blocks": len(commits),
    }
