"""The options of the benchmarks."""

import argparse
from pathlib import Path
from typing import Any, get_args

from das_lib.config.data import OnDomain
from das_lib.config.tree import Decode
from das_lib.memory import keep_freed_memory

MODEL = "openai/whisper-base"
PRECISIONS = get_args(Decode.model_fields["precision"].annotation)


def add_benches(parser: argparse.ArgumentParser) -> Any:
    """Add one command a benchmark; what others can add theirs to."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", default=MODEL, help=f"local path or name (default {MODEL})")
    common.add_argument(
        "--audio",
        type=Path,
        action="append",
        metavar="MANIFEST",
        help="manifest.jsonl of the clips to decode; may be repeated where WER is counted",
    )
    common.add_argument("--rounds", type=_count, default=5, help="counted rounds (default 5)")
    common.add_argument("--threads", type=_count, default=2, help="compute threads (default 2)")

    text = "the cost of k adapters decoded in one pass, against none and one by one"
    adml = benches.add_parser("adml", parents=[common], help=text, description=text)
    adml.add_argument("--k", type=_counts, default=(0, 1, 2, 3, 10, 25), metavar="K,...")
    adml.add_argument("--batch", type=_counts, default=(1, 16), metavar="B,...")
    adml.add_argument("--precision", choices=PRECISIONS, default="float32")
    adml.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    adml.add_argument("--passes", type=_count, default=14, help="decoder passes (default 14)")
    adml.add_argument("--no-sequential", action="store_true", help="leave out k + 1 single decodes")
    adml.add_argument("--profile", action="store_true", help="show where the time goes instead")
    adml.set_defaults(handler=_adml)

    text = "this engine beside faster-whisper, transformers and PEFT"
    peers = benches.add_parser("peers", parents=[common], help=text, description=text)
    peers.add_argument("--clips", type=_count, default=8, help="clips a round (default 8)")
    peers.add_argument("--batch", type=_count, default=1, help="of this engine and transformers")
    peers.set_defaults(handler=_peers)

    text = "the engine's tokens against stock transformers and PEFT, and word error rates"
    parity = benches.add_parser("parity", parents=[common], help=text, description=text)
    parity.add_argument("--device", default="cpu", help="of the engine: cpu (default) or cuda")
    parity.set_defaults(handler=_parity)

    text = "modes beyond the paper (precision, window, beams, ...): word errors and time"
    modes = benches.add_parser("modes", parents=[common], help=text, description=text)
    modes.set_defaults(handler=_modes)

    text = "samples a second of adapter training, with and without the feature cache"
    train = benches.add_parser("train", parents=[common], help=text, description=text)
    train.add_argument("--utterances", type=_count, default=32, help="of each --audio (32)")
    train.add_argument("--batch", type=_count, default=16, help="samples a step (default 16)")
    train.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    train.set_defaults(handler=_train)

    text = "how many of a run's texts are on their domain, by a judge, with a sample"
    texts = benches.add_parser("texts", help=text, description=text)
    texts.add_argument("folders", nargs="+", metavar="FOLDER", help="OUTPUT/texts/DOMAIN-HASH")
    texts.add_argument("--model", default=OnDomain().model, help="sentence embedder")
    texts.set_defaults(handler=_texts)
    text = "long recordings: speed, WER and times, beside faster-whisper's batched pipeline"
    longform = benches.add_parser("longform", parents=[common], help=text, description=text)
    longform.add_argument("--minutes", type=float, default=60.0, help="of a recording (60)")
    longform.add_argument(
        "--recordings", type=_count, default=1, help="of other clips each, heard in turn (1)"
    )
    longform.add_argument("--precision", default="float32,bfloat16", help="by commas")
    longform.add_argument("--no-peers", action="store_true", help="without faster-whisper")
    longform.set_defaults(handler=_longform)
    for bench in (parity, modes, longform):
        bench.add_argument(
            "--adapter",
            dest="adapters",
            action="append",
            default=[],
            type=_adapter,
            metavar="NAME=FOLDER",
            help="a trained adapter (PEFT folder); may be repeated",
        )
        bench.add_argument("--utterances", type=_count, default=50, help="of each --audio (50)")
        bench.add_argument("--batch", type=_count, default=8, help="utterances decoded together")
        bench.add_argument("--tau", type=float, default=0.025)
    return benches


def _adml(arguments: argparse.Namespace) -> int:
    from das_lib.bench.adml import bench_adml
    from das_lib.bench.profile import bench_profile

    model, clips = _material(arguments, max(arguments.batch))
    options = {
        "ks": arguments.k,
        "batches": arguments.batch,
        "precision": arguments.precision,
        "device": arguments.device,
        "passes": arguments.passes,
        "rounds": arguments.rounds,
    }
    if arguments.profile:
        bench_profile(model, clips, **options)
    else:
        bench_adml(model, clips, sequential=not arguments.no_sequential, **options)
    return 0


def _peers(arguments: argparse.Namespace) -> int:
    from das_lib.bench.peers import bench_peers

    model, clips = _material(arguments, arguments.clips)
    threads = arguments.threads
    bench_peers(model, clips, batch=arguments.batch, rounds=arguments.rounds, threads=threads)
    return 0


def _parity(arguments: argparse.Namespace) -> int:
    from das_lib.bench.parity import bench_parity

    model, clips, texts = _utterances(arguments, every_set=True)
    adapters, tau = dict(arguments.adapters), arguments.tau
    options = {"tau": tau, "batch": arguments.batch, "device": arguments.device}
    bench_parity(model, clips, texts, adapters, **options)
    return 0


def _modes(arguments: argparse.Namespace) -> int:
    from das_lib.bench.modes import bench_modes

    model, clips, texts = _utterances(arguments)
    options = {"tau": arguments.tau, "batch": arguments.batch, "rounds": arguments.rounds}
    bench_modes(model, clips, texts, dict(arguments.adapters), **options)
    return 0


def _longform(arguments: argparse.Namespace) -> int:
    from das_lib.bench.longform import bench_longform

    model, clips, texts = _utterances(arguments, every_set=True)
    bench_longform(
        model,
        clips,
        texts,
        dict(arguments.adapters),
        minutes=arguments.minutes,
        recordings=arguments.recordings,
        precisions=arguments.precision.split(","),
        batch=arguments.batch,
        rounds=arguments.rounds,
        threads=arguments.threads,
        peers=not arguments.no_peers,
    )
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from das_lib.bench.train import bench_train

    model, clips, texts = _utterances(arguments)
    options = {key: getattr(arguments, key) for key in ("batch", "device", "rounds")}
    bench_train(model, clips, texts, **options)
    return 0


def _texts(arguments: argparse.Namespace) -> int:
    from das_lib.bench.texts import bench_texts

    bench_texts(arguments.folders, arguments.model)
    return 0


def _utterances(arguments: argparse.Namespace, *, every_set: bool = False):
    import torch

    from das_lib.bench.material import default_manifest, read_sets, speech_manifests
    from das_lib.models import resolve_model

    keep_freed_memory()  # as the jobs' processes do
    torch.set_num_threads(arguments.threads)
    sets = arguments.audio or (speech_manifests() if every_set else [default_manifest()])
    clips, texts = zip(*read_sets(sets, arguments.utterances), strict=True)
    return resolve_model(arguments.model), clips, texts


def _material(arguments: argparse.Namespace, count: int):
    import torch

    from das_lib.bench.material import default_manifest, read_clips
    from das_lib.models import resolve_model

    keep_freed_memory()  # as the jobs' processes do
    torch.set_num_threads(arguments.threads)
    [manifest] = (arguments.audio or [default_manifest()])[:1]
    clips = read_clips(manifest, count)
    return resolve_model(arguments.model), clips


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _counts(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"{min(values)} is below 0")
    return values


def _adapter(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=FOLDER")
    return name, Path(folder)
