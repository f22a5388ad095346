"""The steps of a run and what each depends on: a changed setting recomputes what needs it.

A step's folder is ``<stage>/<name>-<hash>``, where the hash covers the settings that determine the
step's rows, the schema's version and the hashes of the steps it reads (after marin's step specs).
Settings that only say how fast (pools, batch sizes of inference) are left out on purpose.
"""

from collections.abc import Mapping, Sequence
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
from das_lib.train.leaks import leaked_ids
from schemas.speech import FEATURES, SPEECH
from schemas.text import INSTRUCTIONS, REPLIES, TEXTS
from schemas.transcripts import CORPUS, TRANSCRIPTS, WER

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

    def folder(self, output: Folder) -> Folder:
        """Where the step writes."""
        return output / self.stage / f"{self.name}-{self.hash}"

    def dataset(self, output: Folder) -> Dataset:
        """The step's dataset."""
        schema = self.schema if self.schema is not None else pa.schema([])
        return Dataset(self.folder(output), schema, self.stage, self.name)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All steps of a run, by stage; keys are domains, test sets, or (system, test set)."""

    instructions: dict[str, Step]
    replies: dict[str, Step]
    texts: dict[str, Step]
    speech: dict[str, Step]
    features: dict[str, Step]
    adapters: dict[str, Step]
    corpora: dict[str, Step]
    transcripts: dict[tuple[str, str], Step]
    report: Step

    @property
    def steps(self) -> list[Step]:
        """All of them, in the order of the work."""
        return [
            *self.instructions.values(),
            *self.replies.values(),
            *self.texts.values(),
            *self.speech.values(),
            *self.features.values(),
            *self.adapters.values(),
            *self.corpora.values(),
            *self.transcripts.values(),
            self.report,
        ]

    @property
    def systems(self) -> list[str]:
        """``base``, ``lora:<domain>`` for each domain, ``das``."""
        return list(dict.fromkeys(system for system, _ in self.transcripts))


def plan_run(config: Config, output: Folder) -> Plan:
    """The steps of ``config`` with what is known of the texts in ``output``.

    An adapter that is kept from texts which a test set tests is another adapter than one that was
    not: it has another hash, and so has all that depends on it. A test set that shares no text
    with the training changes nothing.

    Raises:
        DasError: See `build_plan`.
    """
    plan = build_plan(config)
    datasets = {domain: step.dataset(output) for domain, step in plan.texts.items()}
    columns = ["id", "text", "split"]
    texts = {d: dataset.read(columns) for d, dataset in datasets.items() if dataset.finished}
    leaked = leaked_ids(config, texts)
    return build_plan(config, leaked) if leaked else plan


def build_plan(config: Config, excluded: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """The steps of ``config``; reads the files that it names, to hash what is in them.

    Args:
        config: The run.
        excluded: Ids of texts that a domain's adapter must not learn; see `plan_run`.

    Raises:
        DasError: a file of own texts or a manifest is missing.
    """
    llm = config.llm.model_dump(
        include={"engine", "model", "temperature", "top_p", "max_tokens"}
    ) | {
        "engine_kwargs": {
            key: value
            for key, value in config.llm.engine_kwargs.items()
            if key not in PLACEMENT_KWARGS
        },
        "prompts": prompts_fingerprint(),
    }
    instructions: dict[str, Step] = {}
    replies: dict[str, Step] = {}
    texts: dict[str, Step] = {}
    for domain in config.domains:
        if domain.seeds:
            instructions[domain.name] = _instructions(config, domain, llm)
            replies[domain.name] = Step(
                stage="replies",
                name=domain.name,
                params={"llm": llm, "texts_per_reply": config.text.texts_per_reply},
                schema=REPLIES,
                deps=(instructions[domain.name],),
            )
        texts[domain.name] = _texts(config, domain, replies.get(domain.name))
    names = list(texts)
    speech = {
        name: Step(
            stage="speech",
            name=name,
            params={"tts": config.tts.model_dump(exclude={"pool"})},
            schema=SPEECH,
            deps=(texts[name],),
        )
        for name in names
    }
    asr = config.asr.model_dump()
    features = {
        name: Step(
            stage="features", name=name, params={"asr": asr}, schema=FEATURES, deps=(speech[name],)
        )
        for name in names
    }
    excluded = excluded or {}
    fit = config.train.model_dump(exclude=set(TRAIN_PLACEMENT))
    adapters = {
        name: Step(
            stage="adapters",
            name=name,
            params={
                "lora": config.lora.model_dump(mode="json"),
                "train": fit,
                "seed": config.seed,
                **({"excluded": list(excluded[name])} if name in excluded else {}),
            },
            deps=(features[name],),
        )
        for name in names
    }
    corpora = {test_set.name: _corpus(test_set) for test_set in config.evaluation.test_sets}
    for domain in config.domains:
        if domain.held_out:
            name = f"synthetic_{domain.name}"
            corpora[name] = Step(
                stage="corpus", name=name, params={}, schema=CORPUS, deps=(speech[domain.name],)
            )
    transcripts = {}
    decode = config.decode.model_dump(exclude={"lookahead"})
    for system, used, params in _systems(config, adapters):
        for name, corpus in corpora.items():
            transcripts[system, name] = Step(
                stage="transcripts",
                name=f"{system.replace(':', '_')}-{name}",
                params={"asr": asr, "decode": decode, "system": system, **params},
                schema=TRANSCRIPTS,
                deps=(corpus, *used),
            )
    report = Step(
        stage="report", name="wer", params={}, schema=WER, deps=tuple(transcripts.values())
    )
    return Plan(
        instructions=instructions,
        replies=replies,
        texts=texts,
        speech=speech,
        features=features,
        adapters=adapters,
        corpora=corpora,
        transcripts=transcripts,
        report=report,
    )


def _systems(
    config: Config, adapters: dict[str, Step]
) -> list[tuple[str, tuple[Step, ...], dict[str, Any]]]:
    singles = [(f"lora:{name}", (step,), {}) for name, step in adapters.items()]
    return [
        ("base", (), {}),
        *singles,
        ("das", tuple(adapters.values()), config.adml.model_dump()),
    ]


def _instructions(config: Config, domain: Domain, llm: dict[str, Any]) -> Step:
    return Step(
        stage="instructions",
        name=domain.name,
        params={
            "seeds": [seed.model_dump(mode="json") for seed in domain.seeds],
            "instructions_per_seed": config.text.instructions_per_seed,
            "llm": llm,
            "seed": config.seed,
        },
        schema=INSTRUCTIONS,
    )


def _texts(config: Config, domain: Domain, replies: Step | None) -> Step:
    params: dict[str, Any] = {
        "utterances": domain.utterances,
        "held_out": domain.held_out,
        "min_words": config.text.min_words,
        "max_words": config.text.max_words,
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


def _corpus(test_set: TestSet) -> Step:
    return Step(
        stage="corpus",
        name=test_set.name,
        params={"manifest": manifest_fingerprint(test_set.manifest)},
        schema=CORPUS,
    )
