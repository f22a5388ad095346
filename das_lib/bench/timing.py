"""Timing side by side: what is compared runs in turn, round by round, after a warm-up."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def measure(
    subjects: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each subject in each round; A B C, A B C, ..., so that drift meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(warmup + rounds):
        for name, subject in subjects.items():
            started = time.perf_counter()
            subject()
            synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
            print(f"\r  round {turn + 1}/{warmup + rounds} {name:<40}", end="", file=sys.stderr)
    print("\r" + " " * 72 + "\r", end="", file=sys.stderr)
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of one's time over the other's, round by round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def spread(seconds: Sequence[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    if len(seconds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / middle


def synchronize() -> None:
    """Wait for the GPU, if there is one at work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def publish(bench: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> None:
    """A table for people on standard error, one JSON object on standard output."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        row = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(row, file=sys.stderr)
    for note in notes:
        print(note, file=sys.stderr)
    print(json.dumps({"bench": bench, "machine": machine(), "rows": list(rows)}))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
