"""The typed tree behind every YAML file; defaults are the paper's where the paper has a value.

Each field's description is what `das config schema` and an editor show. A field that changes what
a stage writes takes part in that stage's hash (see `das_lib.plan`); fields that only say how fast
(``actors``, ``num_cpus``, ``num_gpus``, batch sizes of inference) do not.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=40)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Pool(Section):
    """How many workers of a stage run side by side, and what each of them takes."""

    actors: Annotated[int, Field(ge=1)] = 1
    """Workers of this stage."""
    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Logical CPUs of each worker; also its number of compute threads."""
    num_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of each worker; a fraction shares one GPU."""


class Ray(Section):
    """The local Ray that `das` starts; ignored on a cluster that already runs."""

    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """Logical CPUs of a local Ray; null takes the machine's cores."""


class Seed(Section):
    """One seed instruction, with the paper's fields (section III-A)."""

    use_case: str
    """What the texts are for, e.g. "question generation in English"."""
    skills: Annotated[tuple[str, ...], Field(min_length=1)]
    """What a text has to draw on, e.g. "English singer", "English album name"."""
    persona: str
    """Who speaks, e.g. "teenager"."""
    instruction: str
    """The task itself, e.g. "generate chatbot questions related to music"."""


class Domain(Section):
    """A domain to adapt to: seed instructions for the LLM, or a file of one's own texts."""

    name: Name
    """Names the adapter, the folders and the columns."""
    utterances: Annotated[int, Field(ge=2)]
    """Texts wanted, those held out for testing included."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Texts kept out of training; spoken, they are the test set ``synthetic_<name>``."""
    seeds: tuple[Seed, ...] = ()
    """Seed instructions for the LLM."""
    texts: str | None = None
    """File of own texts (JSONL, CSV, Parquet or TXT; column ``text``); then no LLM runs."""

    @model_validator(mode="after")
    def _one_source(self) -> "Domain":
        if bool(self.seeds) == bool(self.texts):
            found = "both seeds and texts" if self.seeds else "neither seeds nor texts"
            raise ValueError(
                f"domain {self.name!r} has {found}; "
                "give seeds for the LLM or a file in texts, one of the two"
            )
        if self.held_out >= self.utterances:
            raise ValueError(
                f"domain {self.name!r}: held_out={self.held_out} leaves nothing of "
                f"utterances={self.utterances} to train on; lower held_out"
            )
        return self


class Llm(Section):
    """The language model that writes instructions and texts."""

    engine: Literal["vllm", "fake"] = "vllm"
    """``fake`` writes fixed phrases without a model, for tests."""
    model: str = "meta-llama/Meta-Llama-3-70B-Instruct"
    """Local folder or hub name."""
    engine_kwargs: dict[str, Any] = {}
    """Passed to vLLM as they are, e.g. ``tensor_parallel_size: 8``."""
    engines: Annotated[int, Field(ge=1)] = 1
    """vLLM engines side by side."""
    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Logical CPUs of each engine's worker."""
    num_gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each engine's worker; 0 runs on the CPU."""
    batch_rows: Annotated[int, Field(ge=1)] = 32
    """Prompts sent to an engine at once."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest reply, tokens."""


class Text(Section):
    """From seed instructions to texts, and what a text must be."""

    instructions_per_seed: Annotated[int, Field(ge=1)] = 100
    """Tailored instructions that the LLM writes from each seed."""
    texts_per_reply: Annotated[int, Field(ge=1, le=100)] = 20
    """Texts asked for in one reply."""
    min_words: Annotated[int, Field(ge=1)] = 3
    """Shorter texts are rejected."""
    max_words: Annotated[int, Field(ge=2)] = 40
    """Longer texts are rejected."""


class Tts(Section):
    """The voice that speaks the texts."""

    engine: Literal["piper", "coqui", "fake"] = "piper"
    """``piper``: embedded ONNX voices; ``coqui``: any Coqui model; ``fake``: tones, for tests."""
    voice: str = "en_US-joe-medium"
    """Piper voice or .onnx file; Coqui model name or .onnx file of a VITS voice."""
    speaker: str | None = None
    """Speaker of a multi-speaker model."""
    speed: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    """1 is the voice's own pace."""
    pool: Pool = Pool()


class Asr(Section):
    """The recogniser to adapt."""

    model: str = "openai/whisper-base"
    """Local folder or hub name of a Whisper model."""
    language: str | None = "en"
    """Spoken language; null lets the base detect it."""


class Lora(Section):
    """One adapter per domain; the defaults are the paper's (section IV)."""

    rank: Annotated[int, Field(ge=1)] = 32
    """Bottleneck dimension r."""
    alpha: Annotated[float, Field(gt=0)] = 64
    """Scaling numerator."""
    rank_stabilized: bool = True
    """Scale by alpha / sqrt(r) instead of alpha / r."""
    init: Literal["pissa", "default"] = "pissa"
    """``pissa`` starts from the principal singular vectors; ``default`` from zero."""
    targets: Annotated[
        tuple[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], ...],
        Field(min_length=1),
    ] = ("q_proj", "v_proj")
    """Decoder projections that get an adapter, in self- and cross-attention alike."""


TRAIN_PLACEMENT = frozenset({"pool", "workers_per_domain", "max_failures"})
"""What of `Train` says where and not what: the adapter is the same whatever it is."""


class Train(Section):
    """How an adapter is fitted; the defaults are the paper's (section IV)."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-6
    """Peak of AdamW's learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the domain's utterances."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Utterances a step, over all of a domain's workers."""
    warmup: Fraction = 0.1
    """Part of the steps in which the learning rate rises from 0; it then falls linearly to 0."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    """Probability that the loss spreads over all tokens alike."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0
    """Part of the utterances kept back to judge each epoch by; the best epoch's adapter is kept."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better one after which training stops; needs ``validation``."""
    workers_per_domain: Annotated[int, Field(ge=1)] = 1
    """Data-parallel workers of one domain."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Worker failures that a domain survives by resuming from its last checkpoint."""
    pool: Pool = Pool()
    """``actors``: domains trained side by side; ``num_cpus``, ``num_gpus``: of each worker."""

    @model_validator(mode="after")
    def _judged(self) -> "Train":
        if self.patience is not None and not self.validation:
            raise ValueError(
                f"patience={self.patience} with validation=0: there is nothing to judge an epoch "
                "by; set validation, for example to 0.05, or take patience out"
            )
        return self


class Adml(Section):
    """One-pass decoding with all adapters (Algorithm 1)."""

    strategy: Literal[
        "adml", "max", "mean_probability", "mean_logprob", "lowest_entropy", "majority"
    ] = "adml"
    """``adml`` is the paper's equation 3; the others are for comparison."""
    tau: Fraction = 0.025
    """Confidence margin of equation 3; the other strategies have none."""


class Decode(Section):
    """How transcripts are decoded, by every system alike; the defaults are exact."""

    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    """Of weights and activations: ``int8`` on CPUs alone, ``float16`` on GPUs alone."""
    beams: Annotated[int, Field(ge=1)] = 1
    """Hypotheses of an utterance; 1 is the paper's greedy decode."""
    margin_s: Annotated[float, Field(ge=0)] | None = None
    """Encode a batch's longest clip and so many seconds, in place of 30 s: approximate."""
    fallback: bool = False
    """Sample again where a transcript repeats itself or is too unlikely, as Whisper does."""
    lookahead: Annotated[int, Field(ge=0)] = 0
    """Tokens that the base drafts where an utterance is decoded alone; the same transcripts."""

    @model_validator(mode="after")
    def _one_hypothesis(self) -> "Decode":
        if self.beams > 1 and self.lookahead:
            raise ValueError(
                f"lookahead={self.lookahead} with beams={self.beams}: drafts follow one "
                "hypothesis; set lookahead to 0 or beams to 1"
            )
        return self


class Serve(Section):
    """The replicas that transcribe."""

    pool: Pool = Pool()
    batch_utterances: Annotated[int, Field(ge=1)] = 16
    """Utterances decoded together."""
    batch_wait_s: Annotated[float, Field(ge=0)] = 0.05
    """Longest wait for a batch to fill, seconds."""


class TestSet(Section):
    """Recordings with their texts."""

    name: Name
    """Names the rows of the report."""
    manifest: str
    """JSONL: ``audio`` (path relative to the manifest, or absolute), ``text``, optional ``id``."""


class Evaluation(Section):
    """What the report measures."""

    test_sets: tuple[TestSet, ...] = ()
    """Test sets beside the texts held out of training."""


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
    asr: Asr = Asr()
    features: Pool = Pool()
    """Workers that run the frozen encoder over the training speech."""
    lora: Lora = Lora()
    train: Train = Train()
    adml: Adml = Adml()
    decode: Decode = Decode()
    serve: Serve = Serve()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        for what, names in (
            ("domains", [d.name for d in self.domains]),
            ("evaluation.test_sets", [t.name for t in self.evaluation.test_sets]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} given twice; names must differ")
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
        gpus, elsewhere = self.serve.pool.num_gpus, {"int8": True, "float16": False}
        if elsewhere.get(self.decode.precision) is (gpus > 0):
            raise ValueError(
                f"decode.precision={self.decode.precision} with serve.pool.num_gpus={gpus:g}: int8 "
                "is for CPUs and float16 for GPUs; choose float32 or bfloat16, which run on both"
            )
        if self.text.min_words > self.text.max_words:
            raise ValueError(
                f"text.min_words={self.text.min_words} is above "
                f"text.max_words={self.text.max_words}; lower it"
            )
        return self
