"""The steps that make texts: what the LLM is asked in rounds, and what is chosen of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from das_lib.config.tree import Config, Domain, Llm
from das_lib.steps import Step
from das_lib.storage import Folder, file_hash
from das_lib.text.codec import prompts_fingerprint
from schemas.text import IMPROVED, INSTRUCTIONS, JUDGEMENTS, REPLIES, TEXTS

# What an LLM engine is told about placement does not change what it writes.
PLACEMENT_KWARGS = frozenset(
    {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "distributed_executor_backend",
    }
)


@dataclass(frozen=True)
class Round:
    """The steps of one domain in one round."""

    instructions: Step
    improved: list[Step]
    """Turn by turn."""
    replies: Step
    contrast: list[Step]
    """Replies of the target model, and judgements of both; or none."""

    @property
    def steps(self) -> list[Step]:
        """In the order of the work."""
        return [self.instructions, *self.improved, self.replies, *self.contrast]


def llm_params(llm: Llm) -> dict[str, Any]:
    """What determines a reply of an LLM.

    Raises:
        DasError: the recording is missing.
    """
    kwargs = llm.engine_kwargs.items()
    params = llm.model_dump(include={"engine", "model", "temperature", "top_p", "max_tokens"})
    params["engine_kwargs"] = {key: v for key, v in kwargs if key not in PLACEMENT_KWARGS}
    params["prompts"] = prompts_fingerprint()
    if llm.recording is not None:
        params["recording"] = file_hash(llm.recording)
    return params


def round_of(config: Config, domain: Domain, number: int = 0) -> Round:
    """The LLM's steps for a domain in one round.

    Raises:
        DasError: a catalogue's file, a recording, or the file of the instructions is missing.
    """
    llm = llm_params(config.llm)
    name = domain.name
    params: dict[str, Any] = {}
    if number:
        name, params = f"{name}-round{number}", {"round": number}
    if domain.catalogues:
        files = sorted(domain.catalogues.items())
        params["catalogues"] = {kind: file_hash(path) for kind, path in files}
    if domain.instructions is not None:
        source: dict[str, Any] = {"instructions": file_hash(domain.instructions)}
    else:
        source = {
            "seeds": [seed.model_dump(mode="json") for seed in domain.seeds],
            "instructions_per_seed": config.text.instructions_per_seed,
            "llm": llm,
        }
    instructions = Step(
        stage="instructions",
        name=name,
        params={**source, "seed": config.seed, **params},
        schema=INSTRUCTIONS,
    )
    improved: list[Step] = []
    for turn in range(1, config.text.improve + 1):
        improved.append(
            Step(
                stage="improved",
                name=name if turn == 1 else f"{name}-turn{turn}",
                params={"llm": llm, "turn": turn},
                schema=IMPROVED,
                deps=(improved[-1] if improved else instructions,),
            )
        )
    asked = improved[-1] if improved else instructions

    def written(stage: str, model: dict[str, Any]) -> Step:
        return Step(
            stage=stage,
            name=name,
            params={"llm": model, "texts_per_reply": config.text.texts_per_reply},
            schema=REPLIES,
            deps=(asked,),
        )

    replies, contrast = written("replies", llm), []
    if config.text.contrast is not None:
        target = written("target_replies", llm_params(config.text.contrast.llm))
        judged = Step(
            stage="judgements",
            name=name,
            params={"llm": llm},
            schema=JUDGEMENTS,
            deps=(asked, replies, target),
        )
        contrast = [target, judged]
    return Round(instructions, improved, replies, contrast)


def finished_rounds(config: Config, domain: Domain, output: Folder) -> Iterator[Round]:
    """A domain's rounds, first to last, as far as ``output`` has them whole."""
    for number in range(config.text.max_rounds if domain.written else 0):
        found = round_of(config, domain, number)
        if not all(step.dataset(output).finished for step in found.steps):
            return
        yield found


def texts_step(config: Config, domain: Domain, first: Round | None) -> Step:
    """A domain's texts, from the LLM's replies or a file of one's own.

    How many rounds of replies they take follows from the first round's settings and the bounds.

    Raises:
        DasError: the file is missing.
    """
    bounds = {"min_words", "max_words", "near_duplicate"}
    if first is not None:
        bounds |= {"max_rounds", "min_yield"}
    params: dict[str, Any] = {
        "utterances": domain.utterances,
        "held_out": domain.held_out,
        "language": config.asr.language,
        **config.text.model_dump(include=bounds),
    }
    deps: tuple[Step, ...] = ()
    if first is not None:
        deps = (first.replies, *first.contrast[1:])
    if config.text.contrast is not None and first is not None:
        params["keep"] = config.text.contrast.keep
    if config.text.on_domain is not None and first is not None:
        params["on_domain"] = config.text.on_domain.model_dump()
    if domain.texts is not None:
        params["texts"] = file_hash(domain.texts)
    return Step(stage="texts", name=domain.name, params=params, schema=TEXTS, deps=deps)
