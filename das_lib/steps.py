"""One step of a run, and the steps whose making needs more than a line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from das_lib.config.tree import TRAIN_PLACEMENT, Config, TestSet
from das_lib.corpus import manifest_fingerprint
from das_lib.dataset import Dataset
from das_lib.ids import content_hash
from das_lib.storage import Folder
from das_lib.train.systems import ENCODER_DECODER, LORA, MULTI, baseline_systems, split_system
from schemas.speech import FEATURES, SPEECH
from schemas.transcripts import CORPUS

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
