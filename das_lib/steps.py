"""One step of a run, and the steps whose making needs more than a line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from das_lib.config.tree import TRAIN_PLACEMENT, Config, Domain, TestSet
from das_lib.corpus import manifest_fingerprint
from das_lib.dataset import Dataset
from das_lib.ids import content_hash
from das_lib.storage import Folder, file_hash
from das_lib.text.codec import prompts_fingerprint
from das_lib.train.systems import ENCODER_DECODER, LORA, MULTI, baseline_systems, split_system
from schemas.speech import FEATURES, SPEECH
from schemas.text import IMPROVED, INSTRUCTIONS, REPLIES, TEXTS
from schemas.transcripts import CORPUS

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


SYNTHETIC = "synthetic_"


def synthetic_set(domain: str) -> str:
    """The test set of a domain's held-out texts, spoken."""
    return f"{SYNTHETIC}{domain}"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One dataset or adapter to make."""

    stage: str
    name: str
    params: dict[str, Any]
    schema: pa.Schema | None = None
    """None for an adapter: its folder holds weights, and its rows are those it learnt from."""
    deps: tuple["Step", ...] = field(default=())

    @cached_property
    def hash(self) -> str:
        """What determines the content, in eight hex digits."""
        return content_hash(self.config)

    @property
    def config(self) -> dict[str, Any]:
        """What determines the content, as ``config.json`` shows it."""
        version = (self.schema.metadata or {})[b"version"].decode() if self.schema else "1"
        return {
            "stage": self.stage,
            "name": self.name,
            "schema_version": version,
            "params": self.params,
            "reads": {f"{dep.stage}/{dep.name}": dep.hash for dep in self.deps},
        }

    @property
    def path(self) -> str:
        """Where the step writes, below the run's output."""
        return f"{self.stage}/{self.name}-{self.hash}"

    def folder(self, output: Folder) -> Folder:
        """Where the step writes."""
        return output / self.path

    def dataset(self, output: Folder) -> Dataset:
        """The step's dataset."""
        schema = self.schema if self.schema is not None else pa.schema([])
        return Dataset(self.folder(output), schema, self.stage, self.name)


def llm_params(config: Config) -> dict[str, Any]:
    """What determines a reply of the LLM."""
    return config.llm.model_dump(
        include={"engine", "model", "temperature", "top_p", "max_tokens"}
    ) | {
        "engine_kwargs": {
            key: value
            for key, value in config.llm.engine_kwargs.items()
            if key not in PLACEMENT_KWARGS
        },
        "prompts": prompts_fingerprint(),
    }


def heard_step(config: Config, stage: str, speech: Step) -> Step:
    """What is learnt from: ``features`` of the frozen encoder, or log-mel ``spectrograms``."""
    params: dict[str, Any] = {"asr": config.asr.model_dump()}
    if config.augment.active:
        params |= {"augment": config.augment.model_dump(mode="json"), "seed": config.seed}
    if config.train.style != "text":
        params["style"] = config.train.style
    return Step(
        stage=stage,
        name=speech.name,
        params=params,
        schema=FEATURES,
        deps=(speech,),
    )


def fit_params(config: Config) -> dict[str, Any]:
    """The recipe of a training."""
    return config.train.model_dump(exclude=set(TRAIN_PLACEMENT))


def learnt_from(
    config: Config, features: Mapping[str, Step], domains: Sequence[str]
) -> tuple[Step, ...]:
    """What a training reads: the domains that it learns, and the others where they anchor it."""
    others = [name for name in features if name not in domains] if config.train.anchor else []
    return tuple(features[name] for name in (*domains, *others))


def left_out(
    config: Config, excluded: Mapping[str, Sequence[str]], domains: Sequence[str]
) -> dict[str, list[str]]:
    """The parameter of a training that names what it must not read, where there is any."""
    read = excluded if config.train.anchor else domains
    ids = sorted({i for name in read for i in excluded.get(name, ())})
    return {"excluded": ids} if ids else {}


def baseline_steps(
    config: Config,
    speech: Mapping[str, Step],
    features: Mapping[str, Step],
    excluded: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Step], dict[str, Step]]:
    """Log-mel spectrograms by domain, where the encoder trains, and the baselines by system.

    Args:
        config: The run.
        speech: By domain.
        features: By domain.
        excluded: Ids of texts that must not be learnt, by domain.
    """
    names = list(features)
    spectrograms: dict[str, Step] = {}
    baselines: dict[str, Step] = {}
    for system in baseline_systems(config.baselines.methods, names):
        method, learnt = split_system(system)
        domains = names if learnt == MULTI else [learnt]
        source = features
        if method == ENCODER_DECODER:
            source = spectrograms
            spectrograms |= {
                name: heard_step(config, "spectrograms", speech[name])
                for name in (names if config.train.anchor else domains)
            }
        own = config.lora if method == LORA else config.baselines
        baselines[system] = Step(
            stage="baselines",
            name=system.replace(":", "_"),
            params={
                "system": system,
                "recipe": own.model_dump(mode="json", exclude={"methods"}),
                "train": fit_params(config),
                "seed": config.seed,
                **left_out(config, excluded, domains),
            },
            deps=learnt_from(config, source, domains),
        )
    return spectrograms, baselines


def round_steps(config: Config, domain: Domain, llm: dict[str, Any], number: int = 0) -> list[Step]:
    """The LLM's steps for a domain in one round: instructions, their improvements, replies.

    Raises:
        DasError: a catalogue's file is missing.
    """
    name = domain.name
    params: dict[str, Any] = {}
    if number:
        name, params = f"{name}-round{number}", {"round": number}
    if domain.catalogues:
        files = sorted(domain.catalogues.items())
        params["catalogues"] = {kind: file_hash(path) for kind, path in files}
    instructions = Step(
        stage="instructions",
        name=name,
        params={
            "seeds": [seed.model_dump(mode="json") for seed in domain.seeds],
            "instructions_per_seed": config.text.instructions_per_seed,
            "llm": llm,
            "seed": config.seed,
            **params,
        },
        schema=INSTRUCTIONS,
    )
    steps = [instructions]
    for turn in range(1, config.text.improve + 1):
        steps.append(
            Step(
                stage="improved",
                name=name if turn == 1 else f"{name}-turn{turn}",
                params={"llm": llm, "turn": turn},
                schema=IMPROVED,
                deps=(steps[-1],),
            )
        )
    replies = Step(
        stage="replies",
        name=name,
        params={"llm": llm, "texts_per_reply": config.text.texts_per_reply},
        schema=REPLIES,
        deps=(steps[-1],),
    )
    return [*steps, replies]


def finished_rounds(config: Config, domain: Domain, output: Folder) -> Iterator[list[Step]]:
    """The steps of a domain's rounds, first to last, as far as ``output`` has them whole."""
    llm = llm_params(config)
    for number in range(config.text.max_rounds if domain.seeds else 0):
        steps = round_steps(config, domain, llm, number)
        if not all(step.dataset(output).finished for step in steps):
            return
        yield steps


def texts_step(config: Config, domain: Domain, replies: Step | None) -> Step:
    """A domain's texts, from the LLM's replies or a file of one's own.

    How many rounds of replies they take follows from the first round's settings and the bounds.

    Raises:
        DasError: the file is missing.
    """
    bounds = {"min_words", "max_words", "near_duplicate"}
    if domain.seeds:
        bounds |= {"max_rounds", "min_yield"}
    params: dict[str, Any] = {
        "utterances": domain.utterances,
        "held_out": domain.held_out,
        "language": config.asr.language,
        **config.text.model_dump(include=bounds),
    }
    if domain.texts is not None:
        params["texts"] = file_hash(domain.texts)
    return Step(
        stage="texts",
        name=domain.name,
        params=params,
        schema=TEXTS,
        deps=(replies,) if replies else (),
    )


def speech_step(config: Config, texts: Step) -> Step:
    """A domain's texts, spoken."""
    params: dict[str, Any] = {"tts": config.tts.model_dump(mode="json", exclude={"pool"})}
    if config.tts.normalise:
        params["language"] = config.asr.language
    if config.tts.max_cer is not None:
        params["asr"] = config.asr.model_dump()
    return Step(stage="speech", name=texts.name, params=params, schema=SPEECH, deps=(texts,))


def corpus_step(test_set: TestSet) -> Step:
    """Recordings that a manifest lists.

    Raises:
        DasError: the manifest cannot be read.
    """
    part = test_set.model_dump(include={"domain", "limit"}, exclude_none=True)
    return Step(
        stage="corpus",
        name=test_set.name,
        params={"manifest": manifest_fingerprint(test_set.manifest), **part},
        schema=CORPUS,
    )
