"""The options of `das inspect`."""

import argparse
from pathlib import Path

from das_lib.errors import DasError


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument("dataset", help="folder of a step, local or s3://, such as OUTPUT/speech/X")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("inspect.html"), help="page to write (%(default)s)"
    )
    parser.add_argument(
        "--sample", type=int, default=100, metavar="N", help="rows to show (%(default)s)"
    )
    parser.set_defaults(handler=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from das_lib.inspection.page import page
    from das_lib.inspection.read import read_dataset

    if arguments.sample < 0:
        raise DasError(f"--sample={arguments.sample} is below 0; give the number of rows to show")
    content = page(read_dataset(arguments.dataset, arguments.sample))
    try:
        arguments.out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DasError(f"--out={arguments.out} cannot be written: {error.strerror}") from error
    print(arguments.out)
    return 0
