"""Sections that say how recordings are transcribed and measured."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from das_lib.config.section import Fraction, Name, Pool, Section


def _margin(tau: float | str) -> float | str:
    if isinstance(tau, float) and not 0 <= tau <= 1:
        raise ValueError("a margin is from 0 to 1, or auto")
    return tau


class Adml(Section):
    """One-pass decoding with all adapters (Algorithm 1)."""

    strategy: Literal[
        "adml", "max", "mean_probability", "mean_logprob", "lowest_entropy", "majority"
    ] = "adml"
    """``adml`` is the paper's equation 3; the others are for comparison."""
    tau: Annotated[float | Literal["auto"], AfterValidator(_margin)] = 0.0
    """Confidence margin of equation 3; the other strategies have none. With 0 the most confident
    branch always decides, which harms speech of no domain least; the paper's is 0.025. ``auto``:
    see ``calibration``."""


class Calibration(Section):
    """How tau is chosen, by `das calibrate` and where ``adml.tau`` is ``auto``.

    Every margin transcribes the domains' held-out speech and speech of unrelated texts. Of those
    that leave the unrelated speech as it was, the one with the fewest errors in domain is taken.
    """

    taus: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.0, 0.0125, 0.025, 0.05, 0.1)
    """Margins to try."""
    max_rise: Fraction = 0.01
    """Rise of the WER on unrelated speech that is allowed, relative to the base's."""
    texts: str | None = None
    """File of texts that belong to no domain; null takes those that come with DAS."""
    utterances: Annotated[int, Field(ge=2)] = 60
    """How many of them are spoken."""


class Decode(Section):
    """How transcripts are decoded, by every system alike; the defaults are exact."""

    precision: Literal["float32", "bfloat16", "bfloat16-all", "float16", "int8"] = "float32"
    """Of weights and activations; on CPUs ``bfloat16`` is of the decoder's weights alone and, with
    AMX, of products of many rows, three for one: hardly a token changes. ``bfloat16-all`` and
    ``int8`` on CPUs alone, ``float16`` on GPUs alone.
    """
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
    """Longest that a free replica waits for a batch to fill, seconds."""


class Transcribe(Section):
    """Bulk transcription: `das transcribe INPUT OUTPUT`."""

    readers: Annotated[int, Field(ge=1)] = 1
    """Workers that read recordings, find the speech in them and put transcripts together."""
    reader_cpus: Annotated[float, Field(gt=0)] = 0.25
    """Logical CPUs that each of them is counted as."""
    recordings_per_block: Annotated[int, Field(ge=1)] = 64
    """Recordings that are committed and retried together; a long one is a block of its own."""
    vad: bool = True
    """Decode speech alone; without, everything, 30 s at a time."""
    speech_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which the VAD takes a sound for speech."""
    word_times: bool = False
    """Say when each word was spoken."""


class TestSet(Section):
    """Recordings with their texts."""

    name: Name
    """Names the rows of the report."""
    manifest: str
    """JSONL: ``audio`` (path relative to the manifest, or absolute), ``text``, optional ``id``."""
    domain: str | None = None
    """Only the manifest's lines with this ``domain``; null takes them all."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many of them, a fair sample that is the same in every run; null takes them all."""


class Evaluation(Section):
    """What the report measures."""

    test_sets: tuple[TestSet, ...] = ()
    """Test sets beside the texts held out of training."""
