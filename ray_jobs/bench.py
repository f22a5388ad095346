"""`das bench generate` and `synthesize`: the pipeline beside the bare engines under it.

A pipeline's start (processes, models) is not what a night of work costs. Speech is measured after
each worker's first block; of text, what three times the prompts take longer than once. The bare
engines are loaded before their clock starts.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any


def add_ray_benches(benches: Any) -> None:
    """Add the commands to those of `das bench`."""
    text = "tokens a second through Ray Data beside the bare vLLM engine"
    generate = benches.add_parser("generate", help=text, description=text)
    generate.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    generate.add_argument(
        "--prompts", type=int, default=32, help="prompts (32), and thrice as many"
    )
    generate.add_argument("--num-cpus", type=float, default=1.5, help="of the engine (1.5)")
    generate.add_argument("--rounds", type=int, default=1)
    generate.set_defaults(handler=_generate)
    text = "seconds of audio a second through Ray Data beside as many bare engines"
    synthesize = benches.add_parser("synthesize", help=text, description=text)
    synthesize.add_argument(
        "--engine", default="piper", choices=("piper", "coqui", "kokoro", "fake")
    )
    synthesize.add_argument("--voice", default="en_US-joe-medium")
    synthesize.add_argument("--speaker")
    synthesize.add_argument("--texts", type=int, default=360, help="texts (360)")
    synthesize.add_argument("--actors", type=int, default=2)
    synthesize.add_argument("--rounds", type=int, default=3)
    synthesize.set_defaults(handler=_synthesize)


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
        ["Audio seconds/s, of the pipeline after each worker's first block."],
    )
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from das_lib.bench.timing import publish
    from das_lib.config.data import Llm
    from das_lib.models import resolve_model
    from ray_jobs.measured import bare_tokens, marginal_rate, pipeline_tokens

    llm = Llm(model=arguments.model, num_cpus=arguments.num_cpus, max_tokens=256, temperature=0.7)
    path = str(resolve_model(llm.model))
    rates = []
    for _ in range(arguments.rounds):
        bare = bare_tokens(llm, path, arguments.prompts)
        with _ray(2):
            pipeline = marginal_rate(partial(pipeline_tokens, llm, path), arguments.prompts)
        rates.append((pipeline, bare))
    row = {"model": arguments.model, "prompts": arguments.prompts}
    publish("generate", [row | _compared(rates, "tokens_per_s")], [_NOTE])
    return 0


_NOTE = "The pipeline's rate is marginal: start and loading are left out on both sides."


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
    return ray_session(parse_config(tree | {"train": {"pool": {"actors": 1}}}))
