"""The command line: `das run`, one command a stage, and what looks at the results."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import get_args

from das_lib.adapters.cli import add_adapters
from das_lib.bench.cli import add_benches
from das_lib.config import Config, json_schema, load_config, to_yaml
from das_lib.config.tree import Baseline
from das_lib.errors import DasError
from das_lib.inspection.cli import add_inspect
from ray_jobs.bench import add_ray_benches

STAGES = {
    "generate": "write instructions and texts with the LLM, or read one's own texts",
    "synthesize": "speak the texts",
    "train": "encode the training speech and fit one adapter per domain",
    "transcribe": "transcribe the test sets with the base, each adapter, and all in one pass",
    "evaluate": "measure and print word error rates",
}

BASELINES = {
    "run": ("--methods", "baselines to train and measure: all, or names of baselines.methods"),
    "train": ("--methods", "baselines to train too: all, or names of baselines.methods"),
    "transcribe": ("--systems", "baselines to transcribe with too: all, or names"),
    "evaluate": ("--systems", "baselines to transcribe with and measure: all, or names"),
}

EPILOG = """\
examples:
  das run -c configs/demo.yaml                     every stage; finished work is skipped
  das run -c configs/demo.yaml --json OUT.json     and the results as JSON
  das run -c configs/demo.yaml --set adml.tau=0.1  only what depends on tau is made anew
  das synthesize -c configs/demo.yaml              one stage
  das train -c configs/demo.yaml --methods all     the paper's baselines, too
  das evaluate -c configs/demo.yaml --systems all  and the table of them all
  das transcribe talks out -c configs/demo.yaml    a corpus with all adapters at once
  das config show -c configs/demo.yaml             all settings with their defaults
  das config schema                                JSON Schema for editors
  das adapters list -c configs/demo.yaml           what was trained, and where it lies
  das inspect runs/demo/speech/music-1a2b3c4d      a page to search and to listen to
  das bench adml --k 0,3,10                        what adapters cost on this machine

A killed run goes on where it stopped: give the same command again.
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command; exit status 0, or 2 for an error that the user can mend."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.handler(arguments)
    except Exception as error:
        message = next((str(e) for e in _causes(error) if isinstance(e, DasError)), None)
        if message is None:
            raise
        print(f"das: error: {message}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="das",
        description="Adapt Whisper to domains with synthetic data only, and transcribe with all "
        "domain adapters in one pass.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c", "--config", required=True, metavar="FILE", help="YAML file of the run"
    )
    common.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, e.g. --set adml.tau=0.1; may be repeated",
    )
    for name, text in {"run": "run every stage that has anything left to do", **STAGES}.items():
        command = commands.add_parser(name, parents=[common], help=text, description=text)
        command.set_defaults(handler=_run, stages=list(STAGES) if name == "run" else [name])
        if name in BASELINES:
            option, text = BASELINES[name]
            command.add_argument(option, dest="baselines", metavar="NAME,...", help=text)
        if name == "transcribe":
            _add_bulk(command)
        if "evaluate" in command.get_default("stages"):
            command.add_argument("--json", metavar="FILE", help="write results and stages as JSON")
    text = "answer OpenAI's transcription API with the base, each adapter and all of them"
    command = commands.add_parser("serve", parents=[common], help=text, description=text)
    command.set_defaults(handler=_serve)
    command.add_argument("--adapters", metavar="A,B", help="as das transcribe takes them (all)")
    command.add_argument("--host", default="127.0.0.1", help="others need a token (127.0.0.1)")
    command.add_argument("--port", type=int, default=8000)
    text = "environment variable that holds the token that clients must send (DAS_TOKEN)"
    command.add_argument("--token-env", default="DAS_TOKEN", metavar="NAME", help=text)
    text = "choose tau on held-out speech, and say which adapters help"
    command = commands.add_parser("calibrate", parents=[common], help=text, description=text)
    command.set_defaults(handler=_calibrate)
    text = "list, inspect, export and push trained adapters"
    add_adapters(commands.add_parser("adapters", help=text, description=text), common)
    text = "write a page to search a dataset, listen to it and see what was rejected"
    add_inspect(commands.add_parser("inspect", help=text, description=text))
    text = "measure the engine; JSON on standard output"
    add_ray_benches(add_benches(commands.add_parser("bench", help=text, description=text)))
    config = commands.add_parser("config", help="show or describe the configuration")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", parents=[common], help="print the resolved settings")
    show.set_defaults(handler=_show)
    schema = actions.add_parser("schema", help="print the JSON Schema")
    schema.set_defaults(handler=_schema)
    return top


def _add_bulk(command: argparse.ArgumentParser) -> None:
    command.set_defaults(handler=_transcribe)
    add = command.add_argument_group("bulk transcription: INPUT OUTPUT").add_argument
    add("input", nargs="?", metavar="INPUT", help="folder, archive, manifest or file; or s3://")
    add("output", nargs="?", metavar="OUTPUT", help="folder of the transcripts; or s3://")
    add("--adapters", metavar="A,B", help="domains, or NAME=FOLDER, or none (all domains)")
    add("--format", default="", metavar="F,G", help="also txt, jsonl, srt, vtt, json, ctm or stm")
    add("--word-times", action="store_true", help="say when each word was spoken")
    add("--merge", metavar="FILE", help="also one .parquet or .jsonl of all transcripts")
    add("--sort", action="store_true", help="that file by id")
    add("--join", action="store_true", help="that file with the manifest's other columns")
    add("--retry", default="", metavar="R,S", help="try again what was rejected for these reasons")
    add("--max-rejected", metavar="N", help="fail if more are rejected, a number or 5%% (all)")


def _transcribe(arguments: argparse.Namespace) -> int:
    if arguments.input is None:
        return _run(arguments)
    if arguments.output is None:
        raise DasError("das transcribe INPUT needs an OUTPUT; name a folder for the transcripts")
    if arguments.word_times:
        arguments.overrides = [*arguments.overrides, "transcribe.word_times=true"]
    config, limit = _config(arguments), arguments.max_rejected
    within = _allowed(limit)
    if arguments.merge is None and (arguments.sort or arguments.join):
        raise DasError("--sort and --join shape the file of --merge; name it")
    from das_lib.bulk.merge import merge
    from ray_jobs.bulk import plan_bulk, tell, transcribe_corpus

    formats = [name for name in arguments.format.split(",") if name]
    retry = [reason for reason in arguments.retry.split(",") if reason]
    bulk = plan_bulk(config, arguments.input, arguments.output, arguments.adapters, formats, retry)
    summary = transcribe_corpus(bulk)
    if arguments.merge is not None:
        options = {"sort": arguments.sort, "join": arguments.join}
        merge(bulk.recordings, bulk.transcripts, arguments.merge, **options)
    tell(summary, bulk.output)
    if summary["rejected"] > within(summary["in"]):
        print(f"das: more than --max-rejected {limit} were rejected", file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    config, token = _config(arguments), os.environ.get(arguments.token_env)
    from das_lib.bulk.api import check_exposure

    check_exposure(arguments.host, token)
    from ray_jobs.serving import serve_api

    serve_api(config, arguments.adapters, arguments.host, arguments.port, token)
    return 0


def _allowed(limit: str | None) -> Callable[[int], float]:
    """How many of so many may be rejected."""
    if limit is None:
        return lambda _: math.inf
    try:
        number = float(limit.removesuffix("%"))
        if not 0 <= number < math.inf:
            raise ValueError
    except ValueError as error:
        raise DasError(
            f"--max-rejected: {limit!r} is no number of at least 0; give 100 or 0.5%"
        ) from error
    return (lambda count: count * number / 100) if limit.endswith("%") else (lambda _: number)


def _config(arguments: argparse.Namespace) -> Config:
    overrides = arguments.overrides
    if named := getattr(arguments, "baselines", None):
        methods = list(get_args(Baseline)) if named == "all" else named.split(",")
        overrides = [*overrides, f"baselines.methods=[{', '.join(methods)}]"]
    return load_config(arguments.config, tuple(overrides))


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    # Ray and torch take seconds to import: a wrong configuration is answered before.
    from ray_jobs.evaluate import show, write_json
    from ray_jobs.pipeline import run_stages
    from ray_jobs.run import Run
    from ray_jobs.runtime import ray_session

    run, stages = Run(config), arguments.stages
    if stages == ["evaluate"] and arguments.baselines:
        stages = ["transcribe", "evaluate"]
    run.output.require_writable()
    with ray_session(config) if run.has_work(stages) else nullcontext():
        run_stages(run, stages)
    if "evaluate" in arguments.stages:
        show(run)
    if getattr(arguments, "json", None):
        write_json(run, arguments.json)
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    arguments.overrides = [*arguments.overrides, "adml.tau=auto"]
    config = _config(arguments)
    from ray_jobs.calibrate import show_choice
    from ray_jobs.pipeline import run_stages
    from ray_jobs.run import Run
    from ray_jobs.runtime import ray_session

    run = Run(config)
    run.output.require_writable()
    if run.plan.calibration is not None and run.dataset(run.plan.calibration).finished:
        show_choice(run)
        return 0
    with ray_session(config):
        run_stages(run, ["generate", "synthesize", "train", "calibrate"])
    return 0


def _show(arguments: argparse.Namespace) -> int:
    print(to_yaml(_config(arguments)), end="")
    return 0


def _schema(_arguments: argparse.Namespace) -> int:
    print(json_schema(), end="")
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what caused it, through Ray's wrappers."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [getattr(current, "cause", None), current.__cause__, current.__context__]


if __name__ == "__main__":
    sys.exit(main())
