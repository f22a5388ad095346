"""Sections that say what the adapters learn from: domains, texts, voices."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from das_lib.config.section import Fraction, Name, Pool, Range, Section, Span


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
    """A domain to adapt to: seeds or instructions for the LLM, or a file of one's own texts."""

    name: Name
    """Names the adapter, the folders and the columns."""
    utterances: Annotated[int, Field(ge=2)]
    """Texts wanted, those held out for testing included."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Texts kept out of training; spoken, they are the test set ``synthetic_<name>``."""
    seeds: tuple[Seed, ...] = ()
    """Seed instructions, from which the LLM writes tailored ones, then texts."""
    instructions: str | None = None
    """File of tailored instructions (JSONL, CSV, Parquet or TXT; column ``instruction``), such as
    those of an earlier run, edited; the LLM writes only the texts."""
    catalogues: dict[Name, str] = Field(default={})
    """Names that the LLM's texts must mention, evenly: by kind (``artist``) a TXT file with one a
    line, or a CSV file with a column of that name."""
    texts: str | None = None
    """File of own texts (JSONL, CSV, Parquet or TXT; column ``text``); then no LLM runs."""

    @model_validator(mode="after")
    def _one_source(self) -> "Domain":
        given = [name for name in ("seeds", "instructions", "texts") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "neither seeds nor instructions nor texts"
            raise ValueError(
                f"domain {self.name!r} has {found}; give one of them: seeds or a file of "
                "instructions for the LLM, or a file of texts"
            )
        if self.held_out >= self.utterances:
            raise ValueError(
                f"domain {self.name!r}: held_out={self.held_out} leaves nothing of "
                f"utterances={self.utterances} to train on; lower held_out"
            )
        return self

    @property
    def written(self) -> bool:
        """Whether the LLM writes its texts."""
        return self.texts is None


class Llm(Section):
    """The language model that writes instructions and texts."""

    engine: Literal["vllm", "openai", "recorded", "fake"] = "vllm"
    """``vllm`` in this cluster; ``openai``: an endpoint that speaks OpenAI's protocol; for tests
    without a model ``recorded``, what one said before, and ``fake``, fixed phrases."""
    model: str = "meta-llama/Meta-Llama-3-70B-Instruct"
    """Local folder or hub name."""
    engine_kwargs: dict[str, Any] = Field(default={})
    """Passed to vLLM as they are, e.g. ``tensor_parallel_size: 8``."""
    base_url: str | None = None
    """Address of the endpoint of ``openai``, such as ``http://host:8000/v1``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Variable of the workers' environment that holds the endpoint's key; the key itself is never
    written anywhere."""
    recording: str | None = None
    """File with the replies of ``recorded``."""
    record: str | None = None
    """File to which every prompt's reply is appended, for ``recorded``."""
    requests: Annotated[int, Field(ge=1)] = 16
    """Requests to the endpoint at once, of each engine."""
    timeout_s: Annotated[float, Field(gt=0)] = 300
    """Longest wait for a reply of the endpoint before the request is sent again."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Times that a request is sent again where the endpoint fails, stalls or limits the rate, with
    growing pauses or those that it asks for; then the row is rejected."""
    engines: Annotated[int, Field(ge=1)] = 1
    """Engines side by side."""
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

    @model_validator(mode="after")
    def _belongings(self) -> "Llm":
        for engine, name in (("openai", "base_url"), ("recorded", "recording")):
            value = getattr(self, name)
            if (self.engine == engine) is not bool(value):
                given = f"{name}={value}" if value else f"no {name}"
                raise ValueError(
                    f"llm.engine={self.engine} with {given}: it belongs to the engine {engine}; "
                    "give both or neither"
                )
        return self


class Contrast(Section):
    """CodecLM's contrastive filtering: texts where the LLM does better than a target model."""

    llm: Llm
    """The target model."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the instructions that are kept, those with the LLM's largest lead."""


class OnDomain(Section):
    """Which texts are on their domain, by a sentence embedder."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The embedder: local folder or hub name."""
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.1
    """By how much a text must be nearer to the domain's seeds than to other topics (cosine); 0
    keeps more of the good texts and of the others."""


class Text(Section):
    """From seed instructions to texts, and what a text must be."""

    instructions_per_seed: Annotated[int, Field(ge=1)] = 100
    """Tailored instructions that the LLM writes from each seed in a round."""
    improve: Annotated[int, Field(ge=0, le=5)] = 0
    """Times that the LLM improves each instruction by a rubric and an action of its own making
    (CodecLM's Self-Rubrics); 0, as in the paper, leaves them as they are."""
    contrast: Contrast | None = None
    """A second model to compare the LLM with; null, as in the paper, keeps all instructions."""
    max_rounds: Annotated[int, Field(ge=1)] = 20
    """Rounds of instructions and texts, as long as texts are missing."""
    min_yield: Fraction = 0.02
    """Part of a round's candidates that must be accepted for another round to follow."""
    texts_per_reply: Annotated[int, Field(ge=1, le=100)] = 20
    """Texts asked for in one reply."""
    min_words: Annotated[int, Field(ge=1)] = 3
    """Shorter texts are rejected."""
    max_words: Annotated[int, Field(ge=2)] = 40
    """Longer texts are rejected."""
    on_domain: OnDomain | None = None
    """Reject what the LLM writes off the domain; null, as in the paper, takes it. Small models
    drift."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Texts that share so much with one taken before (Jaccard index of their 4-grams of characters)
    are rejected; 1 rejects no more than the duplicates."""


class Voice(Section):
    """One voice of a TTS engine."""

    voice: str = "en_US-joe-medium"
    """Piper voice or .onnx file; Coqui model name or .onnx file of a VITS voice;
    ``kokoro-82m-int8`` or a Kokoro .onnx file."""
    speaker: str | None = None
    """Speaker of a multi-speaker model."""
    speed: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    """1 is the voice's own pace."""

    @property
    def label(self) -> str:
        """What the dataset calls it."""
        speaker = f"/{self.speaker}" if self.speaker else ""
        return f"{self.voice}{speaker}" + (f"@{self.speed:g}" if self.speed != 1 else "")


class Tts(Voice):
    """The voice that speaks the texts."""

    engine: Literal["piper", "coqui", "kokoro", "fake"] = "piper"
    """``piper``: embedded ONNX voices; ``coqui``: any Coqui model; ``kokoro``: Kokoro-82M;
    ``fake``: tones, for tests."""
    voices: tuple[Voice, ...] = ()
    """Several voices of the engine in place of the one, each as often; the paper has one."""
    normalise: bool = True
    """Write numbers, units and abbreviations out for the voice (English, Chinese, Japanese); the
    transcript keeps the written form."""
    max_cer: Annotated[float, Field(gt=0)] | None = None
    """Reject a recording of which the base makes a transcript with a higher character error rate;
    null does not ask the base, which takes longer than to speak."""
    pool: Pool = Pool()

    @property
    def cast(self) -> tuple[Voice, ...]:
        """All voices that speak."""
        return self.voices or (Voice(voice=self.voice, speaker=self.speaker, speed=self.speed),)


class Augment(Section):
    """How the training speech is perturbed before the encoder hears it."""

    part: Fraction = 0.75
    """Part of the versions that are perturbed; the others stay as the voice spoke them. The paper
    perturbs none: 0."""
    versions: Annotated[int, Field(ge=1, le=16)] = 1
    """Versions of each utterance, each perturbed and encoded by itself."""
    pace: Range = (0.85, 1.2)
    """Played so many times as fast, the pitch with it: other voices, in effect."""
    rt60_s: Range | None = (0.2, 0.7)
    """Seconds in which the room's echo fades by 60 dB; null: no room."""
    direct_db: Span = (0, 12)
    """Level of the direct sound over the echo."""
    snr_db: Span | None = (5, 20)
    """Level of the speech over the noise; null: no noise."""
    noises: Annotated[tuple[Literal["babble", "pink"], ...], Field(min_length=1)] = (
        "babble",
        "pink",
    )
    """Kinds of noise, each as often."""
    time_masks: Annotated[int, Field(ge=0)] = 0
    """Stretches of every version's log-mel that are blanked (SpecAugment)."""
    time_mask_s: Annotated[float, Field(gt=0, le=5)] = 0.4
    """Longest of them, seconds."""
    mel_masks: Annotated[int, Field(ge=0)] = 0
    """Bands of every version's log-mel that are blanked (SpecAugment)."""
    mel_mask_bins: Annotated[int, Field(ge=1)] = 15
    """Widest of them, mel bins."""

    @property
    def active(self) -> bool:
        """Whether the encoder hears anything but the recordings themselves."""
        return self.part > 0 or self.versions > 1 or self.masks

    @property
    def masks(self) -> bool:
        """Whether parts of the log-mel are blanked."""
        return self.time_masks + self.mel_masks > 0
