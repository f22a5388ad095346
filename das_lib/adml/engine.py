"""Transcription with the base and any number of adapters: the loop of the paper's Algorithm 1.

The encoder and the base's cross-attention run once per utterance; every strategy decodes from
them. All branches of an utterance read the one token sequence that the strategy chooses.

Shape suffixes: B utterances, N branches, T positions, S encoder frames, D model width,
V vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das_lib.adml.bank import AdapterBank
from das_lib.adml.decoder import Decoder, Memory
from das_lib.adml.prompt import Prompts
from das_lib.adml.select import Choice, Rule, Scores, Strategy
from das_lib.errors import DasError, ModelError, Reject

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.1
MAX_NEW_TOKENS = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One transcript and who decided what; T counts the end-of-text token where it was reached."""

    text: str
    tokens: list[int]
    """The chosen tokens, without the prompt. [T]"""
    branch: list[int]
    """The branch that chose each token: 0 is the base. [T]"""
    rule: list[Rule]
    """The rule that fired for each token. [T]"""
    branches: tuple[int, ...]
    """The branches that ran, the columns of ``confidence``. [N]"""
    confidence: np.ndarray
    """max softmax(logits) of each branch at each token, float32. [T, N]"""
    avg_logprob: float
    """Mean log-probability of the chosen tokens under the branches that chose them."""
    language: str
    """Code of the language given or detected."""


@dataclass(slots=True)
class _Trace:
    """What the loop collects for one utterance."""

    tokens: list[int]
    branch: list[int]
    rule: list[Rule]
    confidence: list[np.ndarray]
    logprob: list[float]


class Transcriber:
    """A Whisper model with a bank of adapters that may grow and shrink while it is in use."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        bank: AdapterBank,
        *,
        language: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ):
        """Wrap a loaded model.

        Args:
            model: A ``WhisperForConditionalGeneration``; its device and dtype are used.
            processor: Its ``WhisperProcessor``: feature extractor and tokenizer.
            bank: Adapters for this model.
            language: A code such as ``en``, or None: the base detects it for each utterance.
            max_new_tokens: Bound on the tokens of a transcript, end of text included.

        Raises:
            ModelError: The model's generation configuration lacks what a prompt needs.
            DasError: The model does not know the language.
        """
        self.bank = bank
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._encoder = model.model.encoder.eval()
        self._decoder = Decoder(model)
        self._extractor = processor.feature_extractor
        self._tokenizer = processor.tokenizer
        self._prompts = Prompts(model.generation_config, model.config.vocab_size, self.device)
        self._language = self._prompts.resolve(language)
        if max_new_tokens < 1:
            raise DasError(f"max_new_tokens is {max_new_tokens}, it must be at least 1")
        # Positions that are fed; the last token of a transcript never is.
        self._capacity = min(self._prompts.length + max_new_tokens, self._decoder.max_length) - 1

    @classmethod
    def from_pretrained(
        cls,
        model_folder: Path,
        adapters: Mapping[str, Path] | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        language: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> "Transcriber":
        """Load a Whisper folder (safetensors only) and PEFT LoRA folders by name.

        Raises:
            ModelError: The folder is no Whisper model, or an adapter is refused.
        """
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        bank = AdapterBank.load(model_folder, adapters or {})
        try:
            model = WhisperForConditionalGeneration.from_pretrained(
                str(model_folder), dtype=dtype, use_safetensors=True
            )
            processor = WhisperProcessor.from_pretrained(str(model_folder))
        except (OSError, ValueError) as error:
            raise ModelError(f"base model: {model_folder} cannot be loaded: {error}") from error
        model.requires_grad_(False).to(torch.device(device))  # pyright: ignore[reportArgumentType]
        return cls(model, processor, bank, language=language, max_new_tokens=max_new_tokens)

    def check(self, audio: Any, id: str = "") -> Reject | None:
        """Say why a clip cannot be transcribed, if so.

        Args:
            audio: 16 kHz mono samples.
            id: Goes into the rejection.
        """
        longest: int = self._extractor.n_samples
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

    def features(self, audio: Sequence[np.ndarray]) -> torch.Tensor:
        """Log-mel spectrogram of clips padded to 30 s. [B, mel bins, 2 S]."""
        mel = self._extractor(list(audio), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return mel.input_features

    @torch.inference_mode()
    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """Run the encoder, all frames kept. [B, S, D]."""
        return self._encoder(mel.to(self.device, self.dtype)).last_hidden_state

    @torch.inference_mode()
    def decode(
        self, h_BSD: torch.Tensor, strategy: Strategy, branches: Sequence[int] | None = None
    ) -> list[Result]:
        """Decode B utterances with one strategy.

        Args:
            h_BSD: The encoder's features.
            strategy: Chooses each token; it runs no branch that it does not need.
            branches: The branches to offer to the strategy, all by default.

        Raises:
            DasError: The strategy needs a branch that is not among them.
        """
        memory = self._decoder.memory(h_BSD)
        return self._decode(memory, self._languages(memory), strategy, branches)

    @torch.inference_mode()
    def transcribe(
        self,
        audio: Sequence[Any],
        strategies: Mapping[str, Strategy],
        *,
        batch_size: int = 16,
        ids: Sequence[str] | None = None,
    ) -> list[dict[str, Result] | Reject]:
        """Transcribe 16 kHz mono clips of 0.1 to 30 s with every strategy.

        Returns:
            For each clip, in order, the results by strategy, or why there are none.

        Raises:
            DasError: A strategy needs a branch that the bank does not have.
        """
        names = ids or [str(i) for i in range(len(audio))]
        out: list[Any] = [self.check(a, n) for a, n in zip(audio, names, strict=True)]
        # Clips of like length end together, so few finished rows wait for the others.
        order = sorted((i for i, r in enumerate(out) if r is None), key=lambda i: len(audio[i]))
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            memory = self._decoder.memory(self.encode(self.features([audio[i] for i in batch])))
            languages = self._languages(memory)
            results = {n: self._decode(memory, languages, s) for n, s in strategies.items()}
            for row, i in enumerate(batch):
                out[i] = {name: rows[row] for name, rows in results.items()}
        return out

    def _languages(self, memory: Memory) -> list[str]:
        """The given language, or what the base hears in each utterance."""
        count = len(memory.h_BSD)
        if self._language is not None:
            return [self._language] * count
        state = self._decoder.start(memory, {}, branches=1, capacity=1)
        x_BND = self._decoder.forward(state, self._prompts.start(count))[:, :, -1]
        return self._prompts.detect(self._decoder.logits(x_BND)[:, 0])

    def _decode(
        self,
        memory: Memory,
        languages: list[str],
        strategy: Strategy,
        branches: Sequence[int] | None = None,
    ) -> list[Result]:
        """Algorithm 1 over a batch, all utterances in step."""
        offered = tuple(range(len(self.bank.names))) if branches is None else tuple(branches)
        columns = strategy.needs(offered)
        deltas = self.bank.stack(columns, dtype=self.dtype, device=self.device)
        state = self._decoder.start(memory, deltas, branches=len(columns), capacity=self._capacity)
        traces = [_Trace([], [], [], [], []) for _ in languages]
        alive = list(range(len(languages)))  # the utterance of each row of the batch
        done = [False] * len(alive)
        tokens_BT, mask_V = self._prompts.build(languages), self._prompts.begin_mask_V
        while not all(done) and state.length < self._capacity:
            x_BND = self._decoder.forward(state, tokens_BT)[:, :, -1]
            scores = Scores.of(self._decoder.logits(x_BND) + mask_V)
            choice = strategy.choose(scores)
            self._record(scores, choice, columns, [traces[u] for u in alive], done)
            tokens_BT, mask_V = choice.token_B.unsqueeze(1), self._prompts.mask_V
            # Moving the survivors' K_0 and V_0 costs as much as some steps of an idle row, so
            # finished rows leave together, a quarter of the batch at a time.
            if 4 * sum(done) >= len(done) and not all(done):
                keep = [row for row, gone in enumerate(done) if not gone]
                keep_B = torch.tensor(keep, device=self.device)
                state.keep(keep_B)
                tokens_BT = tokens_BT[keep_B]
                alive, done = [alive[row] for row in keep], [False] * len(keep)
        return [
            self._result(t, columns, language)
            for t, language in zip(traces, languages, strict=True)
        ]

    def _record(
        self,
        scores: Scores,
        choice: Choice,
        columns: tuple[int, ...],
        traces: list[_Trace],
        done: list[bool],
    ) -> None:
        """Append one step to the utterances that go on, and mark those that end here."""
        row_B = torch.arange(len(traces), device=self.device)
        logit_B = scores.logits_BNV[row_B, choice.branch_B, choice.token_B]
        logprob = (logit_B - scores.logz_BN[row_B, choice.branch_B]).tolist()
        token, branch, rule = (x.tolist() for x in (choice.token_B, choice.branch_B, choice.rule_B))
        confidence = scores.c_BN.cpu().numpy()
        for row, trace in enumerate(traces):
            if not done[row]:
                trace.tokens.append(token[row])
                trace.branch.append(columns[branch[row]])
                trace.rule.append(Rule(rule[row]))
                trace.confidence.append(confidence[row])
                trace.logprob.append(logprob[row])
                done[row] = token[row] in self._prompts.end

    def _result(self, trace: _Trace, columns: tuple[int, ...], language: str) -> Result:
        return Result(
            text=self._tokenizer.decode(trace.tokens, skip_special_tokens=True).strip(),
            tokens=trace.tokens,
            branch=trace.branch,
            rule=trace.rule,
            branches=columns,
            confidence=np.stack(trace.confidence).astype(np.float32),
            avg_logprob=math.fsum(trace.logprob) / len(trace.logprob),
            language=language,
        )
