"""`das bench scale`: texts and speech of a paper-sized run on fake engines, killed at random.

The commands are the real ones, on a cluster of two raylets on this machine; only what writes and
what speaks is fake. So what is measured is the pipeline: its memory, its time, and what it loses.
"""

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from das_lib.config import Config, load_config
from das_lib.errors import DasError
from das_lib.plan import build_plan
from das_lib.storage import Folder
from ray_jobs.cluster import START_S, Cluster

SHARES = {"music": 0.38, "weather": 0.26, "sports": 0.36}
"""Of the paper's 121,000 utterances (46,000, 31,000 and 44,000)."""
SKILLS = ("singer", "player", "season", "record", "history", "travel", "family", "prices")
STAGES = ("generate", "synthesize")
KILLED = ("worker", "node", "driver")
MEGABYTE = 1 << 20


@dataclass
class Chaos:
    """Runs a stage's command until it ends well, kills parts of it, and looks at the memory."""

    cluster: Cluster
    kills: int
    draw: random.Random
    least_s: float
    most_s: float
    killed: list[str] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds, megabytes of the driver, megabytes of the largest worker."""

    def run(self, command: list[str]) -> float:
        """Seconds until ``command`` ended well, restarts included.

        Raises:
            DasError: it failed though nothing that it needs was killed.
        """
        started = time.monotonic()
        while True:
            before = len(self.killed)
            with (self.cluster.folder / "driver.log").open("ab") as log:
                driver = subprocess.Popen(
                    command, env=self.cluster.environment, stdout=log, stderr=log
                )
            self._watch(driver)
            if driver.returncode == 0:
                return time.monotonic() - started
            if len(self.killed) == before:
                tail = (self.cluster.folder / "driver.log").read_text()[-2000:]
                raise DasError(f"{' '.join(command)} failed undisturbed: {tail}")

    def _watch(self, driver: subprocess.Popen[bytes]) -> None:
        pause = self.draw.uniform(self.least_s, self.most_s)
        last = time.monotonic()
        while driver.poll() is None:
            time.sleep(0.5)
            workers = self.cluster.workers()
            now = time.monotonic()
            if workers:  # else the stage has not begun
                largest = max(map(_resident_mb, workers))
                self.memory.append((now, _resident_mb(driver.pid), largest))
            else:
                last = now
            if len(self.killed) < self.kills and now - last > pause:
                self._kill(KILLED[len(self.killed) % len(KILLED)], driver.pid)
                pause, last = self.draw.uniform(self.least_s, self.most_s), now

    def _kill(self, what: str, driver: int) -> None:
        if what == "driver":
            os.kill(driver, signal.SIGKILL)
        elif what == "worker":
            workers = self.cluster.workers()
            if not workers:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(workers), signal.SIGKILL)
        else:
            raylet = self.cluster.raylet()
            if raylet is None:
                return
            os.kill(raylet, signal.SIGKILL)
            self.cluster.processes["node"].wait(START_S)
            self.cluster.start_node()
        self.killed.append(what)


def measure_scale(
    runs: list[tuple[int, int]], between: tuple[float, float], seed: int
) -> list[dict[str, Any]]:
    """A row for each run, given as its utterances and its kills."""
    draw = random.Random(seed)
    rows = []
    for size, kills in runs:
        with tempfile.TemporaryDirectory(prefix="das-") as folder, Cluster(Path(folder)) as cluster:
            rows.append(measure_run(Path(folder), size, Chaos(cluster, kills, draw, *between)))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def measure_run(folder: Path, utterances: int, chaos: Chaos) -> dict[str, Any]:
    """Make the texts and the speech of a run; what it took and what became of the rows."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(simulated(utterances, folder / "out")))
    seconds = {}
    for stage in STAGES:
        chaos.memory.clear()
        command = [sys.executable, "-m", "ray_jobs.cli", stage, "-c", str(path)]
        seconds[stage] = chaos.run(command)
    total = sum(seconds.values())
    return {
        "utterances": utterances,
        "kills": ", ".join(f"{chaos.killed.count(k)} {k}" for k in dict.fromkeys(chaos.killed)),
        "texts_s": seconds["generate"],
        "speech_s": seconds["synthesize"],
        "utterances_per_s": utterances / total,
        **flatness(chaos.memory),
        **accounted(load_config(path)),
    }


def simulated(utterances: int, output: Path) -> dict[str, Any]:
    """The settings of a run of that size on fake engines."""
    domains = []
    for name, share in SHARES.items():
        wanted = round(utterances * share)
        seed = {
            "use_case": f"{name} questions in English",
            "skills": [f"{name} {skill}" for skill in SKILLS],
            "persona": "somebody",
            "instruction": f"Ask an assistant about {name}.",
        }
        domains.append({"name": name, "utterances": wanted, "seeds": [seed]})
    return {
        "name": "scale",
        "output": str(output),
        "domains": domains,
        "llm": {"engine": "fake", "num_cpus": 0.5},
        "text": {"instructions_per_seed": max(8, utterances // 40), "texts_per_reply": 20},
        "tts": {"engine": "fake", "pool": {"actors": 2, "num_cpus": 0.8}},
    }


def accounted(config: Config) -> dict[str, Any]:
    """Where the utterances of a run are: once, twice, missing; and in what files."""
    plan, output = build_plan(config), Folder(config.output)
    ids: list[str] = []
    rejected, missing, sizes = 0, 0, []
    for domain in config.domains:
        texts, speech = (steps[domain.name].dataset(output) for steps in (plan.texts, plan.speech))
        found = speech.read(["id"])["id"].to_pylist()
        refused = speech.summary().rejected
        ids += found
        rejected += refused
        missing += len(set(texts.read(["id"])["id"].to_pylist()) - speech.committed_ids())
        missing += domain.utterances - texts.summary().rows_out
        sizes += [os.path.getsize(path) for path in speech.files()]
    return {
        "unique": len(set(ids)),
        "twice": len(ids) - len(set(ids)),
        "rejected": rejected,
        "missing": missing,
        "files": len(sizes),
        "file_mb": statistics.median(sizes) / MEGABYTE,
    }


def flatness(memory: list[tuple[float, float, float]]) -> dict[str, float]:
    """Megabytes of the driver and of the largest worker, in the first and the last quarter."""
    quarter = max(1, len(memory) // 4)
    found = {}
    for name, column in (("driver", 1), ("worker", 2)):
        values = [sample[column] for sample in memory] or [0.0]
        found[f"{name}_first"] = statistics.median(values[:quarter])
        found[f"{name}_last"] = statistics.median(values[-quarter:])
    return found


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    return 0.0
