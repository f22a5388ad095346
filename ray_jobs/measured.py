"""What the benchmarks of text and speech measure: a stage on Ray, and the engine under it alone."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from das_lib.config.data import Domain, Llm, Seed, Text, Tts
from das_lib.config.section import Pool
from das_lib.dataset import Dataset, read_block
from das_lib.errors import DasError
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.speech.audio import SAMPLE_RATE
from das_lib.storage import Folder

LOADING_S = 600  # longest wait for the other bare engines
BLOCKS = 6  # of each worker
SENTENCES = Path(__file__).parents[1] / "das_lib" / "text" / "unrelated.txt"
SEED = Seed(
    use_case="question generation in English",
    skills=("singer", "album", "song title", "concert", "instrument", "rock band"),
    persona="teenager",
    instruction="Generate questions about music that one would ask a voice assistant.",
)


def pipeline_rate(tts: Tts, actors: int, count: int) -> float:
    """Seconds of audio a second of the speech stage for ``count`` texts, once all workers work."""
    from ray_jobs.flow import OneOutput, pending_items, run_items
    from ray_jobs.synthesize import speaker
    from schemas.speech import SPEECH
    from schemas.text import TEXTS

    with tempfile.TemporaryDirectory() as folder:
        given = Dataset(Folder(f"{folder}/texts"), TEXTS, "texts", "bench")
        spoken = Dataset(Folder(f"{folder}/speech"), SPEECH, "speech", "bench")
        rows = [
            {"id": row_id(text), "domain": "bench", "text": text, "split": "train", "source": "-"}
            for text in sentences(count)
        ]
        rows_per_block = max(1, count // (BLOCKS * actors))
        given.commit("00000", Outcome(pa.Table.from_pylist(rows, schema=TEXTS)), rows_per_block)
        run_items(
            "speech",
            pending_items({"bench": given}, {"bench": spoken}),
            partial(OneOutput, partial(speaker, tts, "en", None)),
            {"bench": spoken},
            Pool(actors=actors),
        )
        commits = []
        for path in spoken.files():
            samples = sum(read_block(path, 0)["num_samples"].to_pylist())
            commits.append((Path(path).stat().st_mtime, samples / SAMPLE_RATE))
    return steady_rate(commits, actors)


def steady_rate(commits: Sequence[tuple[float, float]], workers: int) -> float:
    """Amount a second from each worker's first commit until none is given a new block.

    Without the end, as without the start: what was begun before the first commits is among the
    last ones, which in a short run are a large part.

    Args:
        commits: Time and amount of each.
        workers: Blocks that are made at once.

    Raises:
        DasError: there are too few commits.
    """
    ordered = sorted(commits)
    steady = ordered[workers:-workers]
    if not steady:
        raise DasError(
            f"{len(ordered)} blocks of {workers} workers are too few to measure; give more texts"
        )
    seconds = steady[-1][0] - ordered[workers - 1][0]
    return sum(amount for _, amount in steady) / max(seconds, 1e-9)


def bare_speech(tts: Tts, actors: int, count: int) -> float:
    """Seconds of audio a second of ``actors`` processes that speak and do nothing else."""
    given = sentences(count)
    barrier = multiprocessing.get_context("spawn").Barrier(actors)
    waiting = [begin(_bare_voice, tts, given[place::actors], barrier) for place in range(actors)]
    results = [end() for end in waiting]
    return sum(audio for audio, _ in results) / max(seconds for _, seconds in results)


def _bare_voice(tts: Tts, texts: list[str], barrier: Any, answer: Connection) -> None:
    import torch

    from das_lib.speech.tts import ENGINES

    torch.set_num_threads(tts.pool.threads)
    voice = ENGINES[tts.engine](tts, tts.pool.threads)
    voice.speak("This is only to begin with.")
    barrier.wait(LOADING_S)
    started = time.perf_counter()
    samples = sum(len(voice.speak(text)) for text in texts)
    answer.send((samples / SAMPLE_RATE, time.perf_counter() - started))


def pipeline_tokens(llm: Llm, count: int) -> float:
    """Tokens a second of ``count`` prompts through Ray Data, once all engines are there."""
    from ray_jobs.llm import EnginePool

    with EnginePool(llm, "bench") as engines:
        engines.answer(prompts(llm, llm.engines)).take_all()
        started = time.perf_counter()
        tokens = sum(row["tokens"] for row in engines.answer(prompts(llm, count)).iter_rows())
        return tokens / (time.perf_counter() - started)


def bare_tokens(llm: Llm, path: str, count: int) -> float:
    """Tokens a second of vLLM alone, in a process of its own: one engine with the CPUs of all."""
    from ray_jobs.llm import cpu_environment

    llm = llm.model_copy(update={"num_cpus": llm.engines * llm.num_cpus})

    ours = dict(os.environ)
    # Before the process begins: the C library reads its settings then.
    os.environ.update(cpu_environment(llm))
    try:
        wait = begin(_bare_llm, path, prompts(llm, count))
    finally:
        os.environ.clear()
        os.environ.update(ours)
    return wait()


def begin(target: Callable[..., None], *arguments: Any) -> Callable[[], Any]:
    """Start ``target`` in a process of its own; what waits for what it sends to its last argument.

    The wait raises EOFError where the process dies.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()

    def end() -> Any:
        try:
            return ours.recv()
        finally:
            process.join()

    return end


def _bare_llm(path: str, rows: list[dict[str, Any]], answer: Connection) -> None:
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    from ray_jobs.llm import CPU_ENGINE, ENGINE

    engine = LLM(path, **ENGINE, **CPU_ENGINE)
    chats, params = [], []
    for row in rows:
        given = dict(row["sampling_params"])
        bound = StructuredOutputsParams(**given.pop("structured_outputs"))
        chats.append(row["messages"])
        params.append(SamplingParams(**given, structured_outputs=bound))
    engine.chat(chats[:1], params[:1], use_tqdm=False)
    started = time.perf_counter()
    outputs = engine.chat(chats, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    answer.send(sum(len(output.outputs[0].token_ids) for output in outputs) / seconds)


def prompts(llm: Llm, count: int) -> list[dict[str, Any]]:
    """Prompts of the second LLM call, all different."""
    from das_lib.text.codec import seed_rows, text_messages, texts_pattern
    from das_lib.text.engine import sampling_params

    domain = Domain(name="bench", utterances=2, seeds=(SEED,))
    rows = [row | {"keywords": row["skills"]} for row in seed_rows(domain, count, 0).to_pylist()]
    pattern = texts_pattern(8, Text(max_words=16))
    return [
        {
            "id": row["id"],
            "messages": text_messages(row, 8),
            "sampling_params": sampling_params(llm, row, pattern),
        }
        for row in rows
    ]


def sentences(count: int) -> list[str]:
    """As many different sentences, of the lengths that people speak in."""
    known = SENTENCES.read_text("utf-8").splitlines()
    rounds = range(-(-count // len(known)))
    return [f"{text} {'Again. ' * turn}".strip() for turn in rounds for text in known][:count]
