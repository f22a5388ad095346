"""Clips to transcripts: checks, log-mel, batches of like length, the engine, text.

Shape suffixes: B utterances, F mel bins, T mel frames, S encoder frames, D model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das_lib.adml.alignment import Seen, place_words
from das_lib.adml.bank import AdapterBank
from das_lib.adml.cross import Memory
from das_lib.adml.engine import MAX_NEW_TOKENS, Engine
from das_lib.adml.fallback import Fallback, Sampled
from das_lib.adml.gpu.mel import LogMel
from das_lib.adml.linear import Precision
from das_lib.adml.result import Result, split_words
from das_lib.adml.select import Strategy
from das_lib.adml.spelling import Spelling
from das_lib.adml.trace import Trace
from das_lib.doubt import MIN_AVG_LOGPROB
from das_lib.errors import DasError, ModelError, Reject

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.1
SHORTEST_WINDOW_S = 10.0
"""Others found words lost below it (docs/benchmarks.md has this project's own figures)."""

_Where = tuple[Engine, Memory, Seen]
"""What a batch was decoded by and from, and what was seen on the way."""


class Transcriber:
    """A Whisper model with its adapters, from 16 kHz audio to text."""

    def __init__(
        self,
        engine: Engine,
        extractor: Any,
        tokenizer: Any,
        *,
        margin_s: float | None = None,
        fallback: Fallback | None = None,
        word_times: bool = False,
    ) -> None:
        """Join an engine with the model's ``WhisperFeatureExtractor`` and tokenizer.

        Args:
            engine: The model.
            extractor: Makes log-mel spectrograms.
            tokenizer: Makes text.
            margin_s: Encode the longest clip of a batch and so many seconds of silence, at least
                `SHORTEST_WINDOW_S`, in place of 30 s. Faster, and approximate: Whisper has learnt
                to hear the end of an utterance from the silence behind it.
            fallback: Look again at doubtful transcripts.
            word_times: Say when each word was spoken (see `alignment`).
        """
        if margin_s is not None and margin_s < 0:
            raise DasError(f"margin_s is {margin_s}, it must be at least 0")
        self.engine = engine
        self.beside: dict[str, Engine] = {}
        """Models that decode what this one's encoder says, by the strategy that means them; see
        `Engine.with_decoder`."""
        self._extractor, self._spell = extractor, Spelling(tokenizer)
        self._log_mel = LogMel(extractor, engine.device) if engine.device.type == "cuda" else None
        self._margin_s, self._fallback, self._word_times = margin_s, fallback, word_times

    @classmethod
    def from_pretrained(
        cls,
        model_folder: Path,
        adapters: Mapping[str, Path] | None = None,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        language: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        lookahead: int = 0,
        beams: int = 1,
        margin_s: float | None = None,
        fallback: Fallback | None = None,
        word_times: bool = False,
    ) -> "Transcriber":
        """Load a Whisper folder (safetensors only) and PEFT LoRA folders by name.

        The options are those of `Engine` and of this class.

        Raises:
            ModelError: The folder is no Whisper model, or an adapter is refused.
            DasError: An option is out of range.
        """
        from transformers import WhisperFeatureExtractor, WhisperTokenizer

        engine = Engine.load(
            model_folder,
            adapters,
            device=device,
            precision=precision,
            language=language,
            max_new_tokens=max_new_tokens,
            lookahead=lookahead,
            beams=beams,
        )
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(str(model_folder))
            tokenizer = WhisperTokenizer.from_pretrained(str(model_folder))
        except (OSError, ValueError) as error:
            raise ModelError(f"base model: {model_folder} cannot be loaded: {error}") from error
        modes = {"margin_s": margin_s, "fallback": fallback, "word_times": word_times}
        return cls(engine, extractor, tokenizer, **modes)

    @property
    def bank(self) -> AdapterBank:
        """The adapters, which may come and go between two calls."""
        return self.engine.bank

    def check(self, audio: Any, id: str = "", window_s: float | None = None) -> Reject | None:
        """Say why a clip cannot be transcribed, if so.

        Args:
            audio: 16 kHz mono samples.
            id: Goes into the rejection.
            window_s: What the clip must fit in; None: 30 s.
        """
        longest: int = self._extractor.n_samples
        if window_s is not None:
            longest = min(longest, round(window_s * SAMPLE_RATE))
        if not isinstance(audio, np.ndarray) or audio.ndim != 1:
            shape = getattr(audio, "shape", type(audio).__name__)
            return Reject(id, "not-mono", f"shape is {shape}, one dimension of samples is needed")
        if not np.issubdtype(audio.dtype, np.floating):
            return Reject(id, "not-float", f"dtype is {audio.dtype}, floats in [-1, 1] are needed")
        seconds = len(audio) / SAMPLE_RATE
        if not len(audio):
            return Reject(id, "empty", "no samples")
        if seconds < MIN_SECONDS:
            return Reject(id, "too-short", f"{seconds:.3f} s, at least {MIN_SECONDS} s are needed")
        if len(audio) > longest:
            limit = longest / SAMPLE_RATE
            return Reject(id, "too-long", f"{seconds:.3f} s, at most {limit:g} s are read; cut it")
        if not np.isfinite(audio).all():
            return Reject(id, "not-finite", f"{(~np.isfinite(audio)).sum()} samples not finite")
        return None

    def features(self, audio: Sequence[np.ndarray], window_s: float | None = None) -> torch.Tensor:
        """Log-mel spectrogram of clips padded to the window. [B, F, T].

        ``window_s`` is by default 30 s, or as ``margin_s`` says.
        """
        if self._log_mel is not None:
            mel_BFT = self._log_mel(audio)
        else:
            mel = self._extractor(list(audio), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            mel_BFT = mel.input_features
        if window_s is None:
            if self._margin_s is None:
                return mel_BFT
            seconds = max(len(clip) for clip in audio) / SAMPLE_RATE + self._margin_s
            window_s = max(seconds, SHORTEST_WINDOW_S)
        frames = round(window_s * SAMPLE_RATE / self._extractor.hop_length)
        return mel_BFT[..., : frames + frames % 2]  # the encoder halves them

    def transcribe(
        self,
        audio: Sequence[Any],
        strategies: Mapping[str, Strategy],
        *,
        batch_size: int = 16,
        ids: Sequence[str] | None = None,
        word_times: Sequence[bool] | None = None,
        windows_s: Sequence[float | None] | None = None,
    ) -> list[dict[str, Result] | Reject]:
        """Transcribe 16 kHz mono clips of 0.1 to 30 s with every strategy.

        Args:
            audio: The clips.
            strategies: By name.
            batch_size: Clips that are decoded together.
            ids: Of the clips, for rejections.
            word_times: Of which clips to say when each word was spoken; None: as of all others.
            windows_s: Length to which each clip is padded, approximate if less than 30 s; None: as
                ``margin_s`` says.

        Returns:
            For each clip, in order, the results by strategy, or why there are none.

        Raises:
            DasError: A strategy needs a branch that the bank does not have.
        """
        names = ids or [str(i) for i in range(len(audio))]
        windows = windows_s or [None] * len(audio)
        out: list[Any] = [self.check(*one) for one in zip(audio, names, windows, strict=True)]
        for window_s in dict.fromkeys(windows):
            order = [i for i, r in enumerate(out) if r is None and windows[i] == window_s]
            # Clips of like length end together, so few finished rows wait for the others.
            order.sort(key=lambda i: len(audio[i]))
            for at in range(0, len(order), batch_size):
                batch = order[at : at + batch_size]
                timed = None if word_times is None else [word_times[i] for i in batch]
                clips = [audio[i] for i in batch]
                rows = self.transcribe_batch(clips, strategies, timed, window_s)
                for i, row in zip(batch, rows, strict=True):
                    out[i] = row
        return out

    def transcribe_batch(
        self,
        audio: Sequence[np.ndarray],
        strategies: Mapping[str, Strategy],
        word_times: Sequence[bool] | None = None,
        window_s: float | None = None,
    ) -> list[dict[str, Result]]:
        """Transcribe checked clips together: one encoder pass, then a decode a strategy."""
        timed = [self._word_times] * len(audio) if word_times is None else word_times
        seconds = {i: len(audio[i]) / SAMPLE_RATE for i, wanted in enumerate(timed) if wanted}
        h_BSD = self.engine.encode(self.features(audio, window_s))
        rows: list[dict[str, Result]] = [{} for _ in audio]
        models = {name: self.beside.get(name, self.engine) for name in strategies}
        for engine in dict.fromkeys(models.values()):  # one memory at a time: it is large
            memory = engine.memory(h_BSD)
            languages = engine.languages(memory)
            for name in [name for name, model in models.items() if model is engine]:
                seen = Seen(engine.alignment_heads, seconds)
                where = (engine, memory, seen)
                traces = engine.decode(memory, languages, strategies[name], seen=seen)
                results = [self.result(trace) for trace in traces]
                if self._fallback is not None:
                    self._look_again(results, where, languages, strategies[name], self._fallback)
                self._ask_for_speech(results, where)
                for i in seconds:
                    results[i] = self._placed(results[i], where, i, seconds[i])
                for row, result in zip(rows, results, strict=True):
                    row[name] = result
        return rows

    def _look_again(
        self,
        results: list[Result],
        where: _Where,
        languages: Sequence[str],
        strategy: Strategy,
        fallback: Fallback,
    ) -> None:
        """Replace doubtful results by sampled ones."""
        engine, memory, seen = where
        generator = torch.Generator(engine.device).manual_seed(fallback.seed)
        for temperature in fallback.temperatures:
            rows = [row for row, result in enumerate(results) if fallback.doubts(result)]
            if not rows:
                return
            sampled = Sampled(strategy, temperature, generator)
            again = [languages[row] for row in rows]
            traces = engine.decode(memory, again, sampled, rows=rows, beams=1, seen=seen)
            for row, trace in zip(rows, traces, strict=True):
                results[row] = replace(self.result(trace), temperature=temperature)

    def _ask_for_speech(self, results: list[Result], where: _Where) -> None:
        """Add to unlikely transcripts how likely it is that nobody speaks."""
        engine, memory, _ = where
        rows = [row for row, r in enumerate(results) if r.avg_logprob < MIN_AVG_LOGPROB]
        if rows:
            for row, probability in zip(rows, engine.no_speech(memory, rows), strict=True):
                results[row] = replace(results[row], no_speech_prob=probability)

    def _placed(self, result: Result, where: _Where, row: int, seconds: float) -> Result:
        """The result with the times of its words."""
        tokens = self._text_tokens(result.tokens)
        words = place_words(*where, row, result.language, tokens, result.words, seconds)
        return replace(result, words=words)

    def result(self, trace: Trace) -> Result:
        """Text and words of a decode."""
        text_tokens = self._text_tokens(trace.tokens)
        return Result(
            text=self._spell(trace.tokens).strip(),
            tokens=trace.tokens,
            branch=trace.branch,
            rule=trace.rule,
            branches=trace.columns,
            confidence=np.stack(trace.confidence).astype(np.float32),
            logprob=trace.logprob,
            language=trace.language,
            words=split_words(text_tokens, trace.branch, trace.logprob, self._spell),
        )

    def _text_tokens(self, tokens: list[int]) -> list[int]:
        return [token for token in tokens if token not in self.engine.prompts.end]
