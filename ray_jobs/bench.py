"""`das bench generate`, `synthesize`, `transcribe`: the pipeline beside the bare engines under it.
`scale` and `files`: very many rows and recordings.

A pipeline's start (processes, models) and end are not what a night of work costs. Speech is
measured after each worker's first block and before its last, text after the engine's first answer.
The bare engines are loaded before their clock starts.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any


def add_ray_benches(benches: Any) -> None:
    """Add the commands to those of `das bench`."""
    text = "the bulk job's throughput beside the engine's batched loop alone"
    transcribe = benches.add_parser("transcribe", help=text, description=text)
    transcribe.add_argument("--model", default="openai/whisper-base")
    transcribe.add_argument("--k", default="0,3", metavar="K,...")
    transcribe.add_argument("--recordings", type=int, default=1152)
    transcribe.add_argument("--bare", type=int, default=128, help="recordings of each bare loop")
    transcribe.add_argument("--batch", type=int, default=8)
    transcribe.add_argument("--precision", default="float32")
    transcribe.add_argument("--replicas", type=int, default=2)
    transcribe.add_argument("--num-cpus", type=int, default=2)
    transcribe.add_argument("--rounds", type=int, default=1)
    transcribe.set_defaults(handler=_transcribe)

    text = "tokens a second through Ray Data beside the bare vLLM engine"
    generate = benches.add_parser("generate", help=text, description=text)
    generate.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    generate.add_argument("--prompts", type=int, default=512, help="prompts (512)")
    generate.add_argument("--engines", type=int, default=2, help="of the pipeline (2)")
    generate.add_argument("--num-cpus", type=float, default=1.5, help="of all engines (1.5)")
    generate.add_argument("--rounds", type=int, default=1)
    generate.set_defaults(handler=_generate)
    text = "seconds of audio a second through Ray Data beside as many bare engines"
    synthesize = benches.add_parser("synthesize", help=text, description=text)
    synthesize.add_argument(
        "--engine", default="piper", choices=("piper", "coqui", "kokoro", "fake")
    )
    synthesize.add_argument("--voice", default="en_US-joe-medium")
    synthesize.add_argument("--speaker")
    synthesize.add_argument("--texts", type=int, default=384, help="texts (384)")
    synthesize.add_argument("--actors", type=int, default=2)
    synthesize.add_argument("--rounds", type=int, default=3)
    synthesize.set_defaults(handler=_synthesize)
    text = "texts and speech of a paper-sized run on fake engines, killed at random points"
    scale = benches.add_parser("scale", help=text, description=text)
    scale.add_argument(
        "--utterances", default="12100,121000", help="sizes, undisturbed (12100,121000)"
    )
    scale.add_argument("--killed", type=int, default=121000, help="size of a killed run; 0: none")
    scale.add_argument("--kills", type=int, default=9, help="in the killed run (9)")
    scale.add_argument("--between", default="20,60", help="seconds between kills (20,60)")
    scale.add_argument("--seed", type=int, default=0)
    scale.set_defaults(handler=_scale)
    text = "das transcribe on very many short files, with a tiny random Whisper"
    files = benches.add_parser("files", help=text, description=text)
    sizes = "1000,1000,100000,1000"  # the small ones take seconds: one alone says little
    files.add_argument("--files", default=sizes, help=f"sizes, in turn ({sizes})")
    files.set_defaults(handler=_files)


def _transcribe(arguments: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from das_lib.adml.checkpoint import read_checkpoint
    from das_lib.bench.material import default_manifest, read_clips, write_adapters
    from das_lib.bench.timing import publish
    from das_lib.models import resolve_model
    from ray_jobs import measured_transcribe as measured

    rows = []
    model = resolve_model(arguments.model)
    clips = read_clips(default_manifest(), 64)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        measured.write_corpus(clips, arguments.recordings, corpus)
        count = max(int(k) for k in arguments.k.split(","))
        adapters = list(write_adapters(Path(folder), read_checkpoint(model).config, count).items())
        config = measured.bench_config(
            arguments.model,
            arguments.precision,
            arguments.batch,
            arguments.replicas,
            arguments.num_cpus,
            folder,
        )
        for k in (int(k) for k in arguments.k.split(",")):
            rates, fills, given = [], [], dict(adapters[:k])
            bare = partial(measured.bare_rtfx, config, str(model), corpus, given, arguments.bare)
            before = bare()
            for _ in range(arguments.rounds):
                rate, fill = measured.pipeline_rtfx(config, corpus, given)
                after = bare()
                # The job takes many minutes, in which the machine's speed changes.
                rates.append((rate, statistics.harmonic_mean([before, after])))
                fills.append(fill)
                before = after
            row = {"k": k, "recordings": arguments.recordings, "dtype": arguments.precision}
            row |= {"replicas": arguments.replicas, "batch": arguments.batch}
            fill = statistics.median(fills)
            rows.append(row | _compared(rates, "rtfx") | {"batch_fill": fill})
    notes = [
        "rtfx: seconds of audio a second, once the replicas are there.",
        "Bare: before and after.",
    ]
    publish("transcribe", rows, notes)
    return 0


def _synthesize(arguments: argparse.Namespace) -> int:
    from das_lib.bench.timing import publish
    from das_lib.config.data import Tts
    from ray_jobs.measured import bare_speech, pipeline_rate

    tts = Tts(engine=arguments.engine, voice=arguments.voice, speaker=arguments.speaker)
    with _ray(arguments.actors):
        rates = [
            (
                pipeline_rate(tts, arguments.actors, arguments.texts),
                bare_speech(tts, arguments.actors, arguments.texts),
            )
            for _ in range(arguments.rounds)
        ]
    row = {"engine": tts.engine, "actors": arguments.actors, "texts": arguments.texts}
    publish(
        "synthesize",
        [row | _compared(rates, "rate")],
        ["Audio seconds/s, of the pipeline after each worker's first block and before its last."],
    )
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from das_lib.bench.timing import publish
    from das_lib.config.data import Llm
    from das_lib.models import resolve_model
    from ray_jobs.measured import bare_tokens, pipeline_tokens

    llm = Llm(
        model=arguments.model,
        engines=arguments.engines,
        num_cpus=arguments.num_cpus / arguments.engines,
        max_tokens=256,
        temperature=0.7,
    )
    path = str(resolve_model(llm.model))
    rates = []
    for _ in range(arguments.rounds):
        bare = bare_tokens(llm, path, arguments.prompts)
        with _ray(2):
            rates.append((pipeline_tokens(llm, arguments.prompts), bare))
    row = {"model": llm.model, "prompts": arguments.prompts, "engines": llm.engines}
    publish("generate", [row | _compared(rates, "tokens_per_s")], [_NOTE])
    return 0


def _scale(arguments: argparse.Namespace) -> int:
    from das_lib.bench.timing import publish
    from ray_jobs.scale import measure_scale

    sizes = [(int(size), 0) for size in arguments.utterances.split(",") if size]
    sizes += [(arguments.killed, arguments.kills)] if arguments.killed else []
    least, most = (float(pause) for pause in arguments.between.split(","))
    rows = measure_scale(sizes, (least, most), arguments.seed)
    publish("scale", rows, [f"{_MEMORY} of the speech."])
    return 0 if all(row["missing"] == row["twice"] == 0 for row in rows) else 1


def _files(arguments: argparse.Namespace) -> int:
    from das_lib.bench.timing import publish
    from ray_jobs.scale_files import compared, measure_files

    rows = compared(measure_files([int(count) for count in arguments.files.split(",")]))
    notes = ["files_per_s: while all readers have blocks to begin."]
    notes += ["ratio: to the median of the fewest files."]
    publish("files", rows, [f"{_MEMORY} of the run.", *notes])
    return 0 if all(row["missing"] == row["twice"] == 0 for row in rows) else 1


_MEMORY = "Memory in MB: medians of the first and last quarter"
_NOTE = "Loading is left out on both sides; Ray Data's own start is in the pipeline's time."


def _compared(rates: Sequence[tuple[float, float]], unit: str) -> dict[str, float]:
    ratios = [pipeline / bare for pipeline, bare in rates]
    return {
        f"pipeline_{unit}": statistics.median(pipeline for pipeline, _ in rates),
        f"bare_{unit}": statistics.median(bare for _, bare in rates),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
    }


def _ray(num_cpus: int) -> Any:
    from das_lib.config import parse_config
    from ray_jobs.measured import SENTENCES
    from ray_jobs.runtime import ray_session

    domain = {"name": "bench", "utterances": 2, "texts": str(SENTENCES)}
    tree = {"name": "bench", "output": "unused", "domains": [domain], "ray": {"num_cpus": num_cpus}}
    # Nothing is transcribed: one CPU is enough.
    return ray_session(parse_config(tree | {"serve": {"pool": {"num_cpus": 0.5}}}))
