"""Runs of the real command line on fakes: tones for a voice, a tiny random Whisper, own texts."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[2]
WORDS = ("jazz", "rain", "goal", "piano", "storm", "match", "drums", "frost", "coach", "opera")


@dataclass
class Project:
    """A configuration on disk and the commands that work on it."""

    config: Path
    output: Path
    environment: dict[str, str] = field(default_factory=dict)

    def das(
        self, *arguments: str, check: bool = True, timeout: float = 500
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr[-6000:]
        return done

    def command(self, name: str, *arguments: str) -> list[str]:
        das = [sys.executable, "-m", "ray_jobs.cli", name, "-c", str(self.config)]
        return [*das, *arguments]

    def step(self, stage: str, name: str) -> Path:
        """The folder of a step; there must be one."""
        (found,) = self.output.glob(f"{stage}/{name}-????????")
        return found

    def rows(self, stage: str, name: str, *columns: str) -> list[dict[str, Any]]:
        """Rows of a step's data, in the order of their ids."""
        table = pq.read_table(self.step(stage, name) / "data", columns=["id", *columns])
        return sorted(table.to_pylist(), key=lambda row: row["id"])

    def hashes(self) -> dict[str, float]:
        """When each step's folder was finished."""
        return {
            str(p.parent.relative_to(self.output)): p.stat().st_mtime
            for p in self.output.glob("*/*/summary.json")
        }


def make_project(
    tiny: Path,
    folder: Path,
    *,
    texts: int = 12,
    domains: tuple[str, ...] = ("music", "sports"),
    **sections: Any,
) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    for domain in domains:
        lines = [f"{domain} {a} {b} please" for a in WORDS for b in WORDS][:texts]
        (folder / f"{domain}.txt").write_text("\n".join([*lines, "...", lines[0]]) + "\n")
    clips = sorted((ROOT / "data" / "eval" / "librivox" / "audio").glob("*.flac"))[:2]
    (folder / "text.flac").write_text("this is no recording")
    (folder / "empty.flac").write_bytes(b"")
    manifest = [
        *({"id": clip.stem, "audio": str(clip), "text": "he was a man"} for clip in clips),
        {"id": "not-audio", "audio": "text.flac", "text": "x"},
        {"id": "empty", "audio": "empty.flac", "text": "x"},
        {"id": "missing", "audio": "nowhere.flac", "text": "x"},
        {"text": "no audio at all"},
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, manifest)) + "\n")
    tree = {
        "name": "test",
        "output": str(folder / "out"),
        "rows_per_block": 4,
        "ray": {"num_cpus": 2},
        "domains": [
            {
                "name": domain,
                "utterances": 100,
                "held_out": 3,
                "texts": str(folder / f"{domain}.txt"),
            }
            for domain in domains
        ],
        "tts": {"engine": "fake"},
        "asr": {"model": str(tiny)},
        "lora": {"rank": 4, "alpha": 8},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "pool": {"actors": 2}},
        "adml": {"tau": 0.001},  # the adapters have seen nine utterances
        "evaluation": {"test_sets": [{"name": "human", "manifest": str(folder / "m.jsonl")}]},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return Project(folder / "config.yaml", folder / "out")
