"""`python -m das_lib.bench`: the benchmarks where Ray is not installed."""

import argparse
import sys

from das_lib.bench.cli import add_benches
from das_lib.errors import DasError


def main() -> int:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(prog="das-bench", description="Measure the engine.")
    add_benches(parser)
    arguments = parser.parse_args()
    try:
        return arguments.handler(arguments)
    except DasError as error:
        print(f"das-bench: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
