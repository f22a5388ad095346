"""The options of `das adapters`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from das_lib.errors import DasError
from das_lib.tables import plain_table


def add_adapters(parser: argparse.ArgumentParser, config: argparse.ArgumentParser) -> None:
    """Add its actions; ``config`` has the options that name a configuration."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "the adapters of a run: state, epochs, losses, folder"
    command = actions.add_parser("list", parents=[config], help=text, description=text)
    command.set_defaults(handler=_list)
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("folder", type=Path, help="PEFT folder of the adapter")
    one.add_argument("--model", help="the base (default: what the adapter names)")
    text = "rank, targets, size of the change, and its effect on a probe, as JSON"
    command = actions.add_parser("show", parents=[one], help=text, description=text)
    command.set_defaults(handler=_show)
    text = "merge an adapter into its base: a whole model for transformers or faster-whisper"
    command = actions.add_parser("export", parents=[one], help=text, description=text)
    command.add_argument("out", type=Path, help="folder to write; it must not exist")
    command.add_argument(
        "--form", choices=("hf", "ct2"), default="hf", help="Hugging Face (default) or CTranslate2"
    )
    command.set_defaults(handler=_export)
    text = "upload an adapter with its model card to the Hugging Face hub (token: HF_TOKEN)"
    command = actions.add_parser("push", help=text, description=text)
    command.add_argument("folder", type=Path, help="PEFT folder of the adapter")
    command.add_argument("repository", help="owner/name; made if it does not exist")
    command.add_argument("--public", action="store_true", help="a new repository is public")
    command.set_defaults(handler=_push)


def _list(arguments: argparse.Namespace) -> int:
    import pyarrow.parquet as pq

    from das_lib.config import load_config
    from das_lib.plan import plan_run
    from das_lib.storage import Folder

    settings = load_config(arguments.config, tuple(arguments.overrides))
    output = Folder(settings.output)
    rows = [["domain", "state", "utterances", "epochs", "loss", "validation_loss", "folder"]]
    for domain, step in plan_run(settings, output).adapters.items():
        dataset = step.dataset(output)
        where = str(dataset.folder / "adapter")
        if not dataset.finished:
            rows.append([domain, "not trained", "-", "-", "-", "-", where])
            continue
        curve = dataset.folder / "curve"
        history = pq.read_table(curve.path("curve.parquet"), filesystem=curve.fs).to_pylist()
        last = history[-1]
        judged = [e["validation_loss"] for e in history if e["validation_loss"] is not None]
        rows.append(
            [
                domain,
                "trained",
                str(dataset.summary().rows_out),
                str(last["epoch"]),
                f"{last['loss']:.4f}",
                f"{min(judged):.4f}" if judged else "-",
                where,
            ]
        )
    print(plain_table(rows))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from das_lib.adapters.describe import describe

    found = asdict(describe(arguments.folder, _base(arguments)))
    print(json.dumps(found, indent=2))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from das_lib.adapters.export import export_ct2, export_hf

    forms: dict[str, Callable[[Path, Path, Path], None]] = {"hf": export_hf, "ct2": export_ct2}
    forms[arguments.form](arguments.folder, _base(arguments), arguments.out)
    print(f"{arguments.out}: {arguments.folder} merged into its base", file=sys.stderr)
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from das_lib.adapters.push import push

    address = push(arguments.folder, arguments.repository, private=not arguments.public)
    print(f"{address}: {arguments.folder}", file=sys.stderr)
    return 0


def _base(arguments: argparse.Namespace) -> Path:
    from das_lib.models import resolve_model

    if arguments.model:
        return resolve_model(arguments.model)
    file = arguments.folder / "adapter_config.json"
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise DasError(
            f"FOLDER: {file} names no base model ({error}); name a PEFT folder, or the base with "
            "--model"
        ) from error
    return resolve_model(name)
