"""What was heard in a recording: its text, segments and words, with times in the recording."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word as it is written, with the punctuation that clings to it."""

    text: str
    adapter: str
    """The branch that chose most of its tokens: ``base`` or an adapter's name."""
    confidence: float
    """The least probability that the choosing branch gave to one of its tokens."""
    start_s: float | None = None
    """None where word times were not asked for."""
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of speech between silences, or a part of one."""

    start_s: float
    end_s: float
    text: str
    avg_logprob: float
    """Mean log-probability of the window's tokens."""
    compression_ratio: float
    """Bytes of the text per byte that zlib makes of it."""
    no_speech_prob: float | None = None
    """What the base thinks of there being no speech; None: it was not asked."""
    temperature: float = 0.0
    """What the tokens were sampled at; 0 is greedy."""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One recording's; an empty ``text`` where nobody speaks."""

    id: str
    language: str
    duration_s: float
    """Of the recording, or of the part that was asked for."""
    speech_s: float
    """What was decoded: the duration without the silence that the VAD found."""
    segments: tuple[Segment, ...] = field(default=())

    @property
    def text(self) -> str:
        """All segments, joined by blanks."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def words(self) -> tuple[Word, ...]:
        """Of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)
