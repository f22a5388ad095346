"""Sections that say what is adapted, and how it is fitted."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from das_lib.config.section import Fraction, Pool, Section


class Asr(Section):
    """The recogniser to adapt."""

    model: str = "openai/whisper-base"
    """Local folder or hub name of a Whisper model."""
    language: str | None = "en"
    """Spoken language; null lets the base detect it."""


class Lora(Section):
    """One adapter per domain; the defaults are the paper's (section IV), but for the start."""

    rank: Annotated[int, Field(ge=1)] = 32
    """Bottleneck dimension r."""
    alpha: Annotated[float, Field(gt=0)] = 64
    """Scaling numerator."""
    rank_stabilized: bool = True
    """Scale by alpha / sqrt(r) instead of alpha / r."""
    init: Literal["pissa", "default"] = "default"
    """``default`` starts from the base as it is; ``pissa``, as in the paper, trains the base's
    principal singular vectors."""
    targets: Annotated[
        tuple[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], ...],
        Field(min_length=1),
    ] = ("q_proj", "v_proj")
    """Decoder projections that get an adapter, in self- and cross-attention alike."""


TRAIN_PLACEMENT = frozenset({"pool", "workers_per_domain", "max_failures"})
"""What of `Train` says where and not what: the adapter is the same whatever it is."""


class Train(Section):
    """How an adapter is fitted.

    The defaults are for hundreds of utterances, found by the search in docs/training.md;
    configs/paper.yaml has the paper's, for tens of thousands.
    """

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Peak of AdamW's learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Passes over the domain's utterances."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Utterances a step, over all of a domain's workers."""
    warmup: Fraction = 0.1
    """Part of the steps in which the learning rate rises from 0; it then falls linearly to 0."""
    style: Literal["text", "base"] = "base"
    """``base`` writes what is learnt with the base's punctuation and spelling of its own transcript
    of the same speech; the words stay the text's."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    """Probability that the loss spreads over all tokens alike."""
    anchor: Annotated[float, Field(ge=0)] = 0
    """Pull towards the base on the other domains' utterances, half a batch of them a step: weight
    of a token's KL divergence beside a learnt token's loss. The adapter then depends on them."""
    interpolation: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Part of the way from the base to what was learnt that is kept at the end (WiSE-FT)."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
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


Baseline = Literal[
    "lora-multi",
    "ft-decoder",
    "ft-decoder-multi",
    "ft-decoder-last-n",
    "ft-decoder-last-n-multi",
    "ft-encoder-decoder",
    "ft-encoder-decoder-multi",
]


class Baselines(Section):
    """What the paper compares with (tables II and IV), trained and measured beside the adapters."""

    methods: tuple[Baseline, ...] = ()
    """``ft-...`` trains the base's own weights, a model a domain; ``...-multi`` learns from all
    domains at once, every batch drawn equally. `das train --methods all` trains them all."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Peak of AdamW's learning rate where the base's own weights train."""
    last_layers: Annotated[int, Field(ge=1)] = 3
    """Decoder layers that ``ft-decoder-last-n`` trains."""
