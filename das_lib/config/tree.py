"""The typed tree behind every YAML file; configs/paper.yaml has the paper's values.

Each field's description is what `das config schema` and an editor show. A field that changes what
a stage writes takes part in that stage's hash (see `das_lib.plan`); fields that only say how fast
(``actors``, ``num_cpus``, ``num_gpus``, batch sizes of inference) do not.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from das_lib.config.data import Augment, Domain, Llm, Ray, Seed, Text, Tts
from das_lib.config.decoding import (
    Adml,
    Calibration,
    Decode,
    Evaluation,
    Serve,
    TestSet,
    Transcribe,
)
from das_lib.config.section import Name, Pool, Section
from das_lib.config.training import (
    TRAIN_PLACEMENT,
    Asr,
    Baseline,
    Baselines,
    Lora,
    Train,
)

__all__ = [
    "TRAIN_PLACEMENT",
    "UNRELATED",
    "Adml",
    "Asr",
    "Augment",
    "Baseline",
    "Baselines",
    "Calibration",
    "Config",
    "Decode",
    "Domain",
    "Evaluation",
    "Llm",
    "Lora",
    "Pool",
    "Ray",
    "Section",
    "Seed",
    "Serve",
    "TestSet",
    "Text",
    "Train",
    "Transcribe",
    "Tts",
]

UNRELATED = "unrelated"
"""In the place of a domain: the texts that belong to none."""
OWN_UNRELATED = Path(__file__).parents[1] / "text" / "unrelated.txt"


class Config(Section):
    """A whole run."""

    name: Name
    """Names the run in logs and reports."""
    output: str
    """Folder of all results, local or s3://."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    rows_per_block: Annotated[int, Field(ge=1)] = 64
    """Rows that are processed, committed and retried together."""
    ray: Ray = Ray()
    domains: Annotated[tuple[Domain, ...], Field(min_length=1)]
    llm: Llm = Llm()
    text: Text = Text()
    tts: Tts = Tts()
    augment: Augment = Augment()
    asr: Asr = Asr()
    features: Pool = Pool()
    """Workers that run the frozen encoder over the training speech."""
    lora: Lora = Lora()
    train: Train = Train()
    baselines: Baselines = Baselines()
    adml: Adml = Adml()
    calibration: Calibration = Calibration()
    decode: Decode = Decode()
    serve: Serve = Serve()
    transcribe: Transcribe = Transcribe()
    evaluation: Evaluation = Evaluation()

    @property
    def spoken(self) -> tuple[Domain, ...]:
        """The domains, and, where tau is to be chosen, the texts that belong to none."""
        if self.adml.tau != "auto":
            return self.domains
        texts = self.calibration.texts or str(OWN_UNRELATED)
        return *self.domains, Domain(
            name=UNRELATED,
            utterances=self.calibration.utterances,
            texts=texts,
        )

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        for what, names in (
            ("domains", [d.name for d in self.domains]),
            ("evaluation.test_sets", [t.name for t in self.evaluation.test_sets]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} given twice; names must differ")
        reserved = {"multi": "what is learnt from all domains", UNRELATED: "what is of none"}
        for name in reserved.keys() & {domain.name for domain in self.domains}:
            raise ValueError(f"domains: {name!r} names {reserved[name]}; rename the domain")
        if self.train.anchor and len(self.domains) < 2:
            raise ValueError(
                f"train.anchor={self.train.anchor:g} with one domain: the base is kept to on the "
                "utterances of the others; add a domain or set anchor to 0"
            )
        if self.adml.tau == "auto":
            if self.adml.strategy != "adml":
                raise ValueError(
                    f"adml.tau=auto with adml.strategy={self.adml.strategy}, which has no tau; "
                    "set strategy to adml or tau to a number"
                )
            if not any(domain.held_out for domain in self.domains):
                raise ValueError(
                    "adml.tau=auto with held_out=0 in every domain: there is nothing to choose "
                    "tau by; give domains a held_out, for example 40"
                )
        clash = {f"synthetic_{d.name}" for d in self.domains} & {
            t.name for t in self.evaluation.test_sets
        }
        if clash:
            raise ValueError(
                f"evaluation.test_sets: {', '.join(sorted(clash))} is the name of a domain's "
                "held-out set; rename the test set"
            )
        if self.decode.beams > 1 and self.adml.strategy.startswith("mean"):
            raise ValueError(
                f"decode.beams={self.decode.beams} with adml.strategy={self.adml.strategy}: a beam "
                "is extended by one branch, not a mean; set beams to 1 or choose another strategy"
            )
        gpus = self.serve.pool.num_gpus
        elsewhere = {"bfloat16-all": True, "int8": True, "float16": False}
        if elsewhere.get(self.decode.precision) is (gpus > 0):
            raise ValueError(
                f"decode.precision={self.decode.precision} with serve.pool.num_gpus={gpus:g}: "
                "bfloat16-all and int8 are for CPUs, float16 is for GPUs; choose float32 or "
                "bfloat16, which run on both"
            )
        if self.text.min_words > self.text.max_words:
            raise ValueError(
                f"text.min_words={self.text.min_words} is above "
                f"text.max_words={self.text.max_words}; lower it"
            )
        return self
