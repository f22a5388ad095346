"""The loop of the paper's Algorithm 1 over a batch of utterances.

The encoder and the base's cross-attention run once per utterance; every strategy decodes from
them. All branches of an utterance read the one token sequence that the strategy chooses.

Shape suffixes: B utterances, N branches, T positions, S encoder frames, D model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from das_lib.adml.alignment import Seen, alignment_heads
from das_lib.adml.bank import AdapterBank, Deltas
from das_lib.adml.beam import decode_with_beams
from das_lib.adml.checkpoint import Checkpoint, read_checkpoint
from das_lib.adml.cross import Memory
from das_lib.adml.decoder import Decoder
from das_lib.adml.encoder import Encoder
from das_lib.adml.gpu.record import Recorded
from das_lib.adml.gpu.replay import Replays
from das_lib.adml.linear import Precision, check_precision
from das_lib.adml.lookahead import decode_with_lookahead
from das_lib.adml.prompt import Prompts
from das_lib.adml.scores import Scores
from das_lib.adml.select import Choice, Strategy
from das_lib.adml.trace import Trace
from das_lib.adml.vocabulary import Vocabulary
from das_lib.errors import DasError, ModelError

MAX_NEW_TOKENS = 224


class Engine:
    """A Whisper model with a bank of adapters that may grow and shrink while it is in use."""

    def __init__(
        self,
        model: Checkpoint,
        bank: AdapterBank,
        *,
        precision: Precision = "float32",
        device: str | torch.device = "cpu",
        language: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        lookahead: int = 0,
        beams: int = 1,
        encoder: Encoder | None = None,
    ):
        """Pack a model's weights for a device.

        Args:
            model: The base.
            bank: Adapters for it.
            precision: Of weights and activations; see `das_lib.adml.linear`.
            device: Where it runs.
            language: A code such as ``en``, or None: the base detects it for each utterance.
            max_new_tokens: Bound on the tokens of a transcript, end of text included.
            lookahead: Tokens that the base drafts ahead of the adapters where an utterance is
                decoded alone (see `lookahead`); the tokens are the same. 0: step by step.
            beams: Hypotheses of an utterance (see `beam`); 1 is Algorithm 1.
            encoder: One that is packed already, with the model's own weights.

        Raises:
            ModelError: The model's generation configuration lacks what a prompt needs.
            DasError: The model does not know the language, or the device not the precision.
        """
        self.device = torch.device(device)
        check_precision(precision, self.device)
        if max_new_tokens < 1:
            raise DasError(f"max_new_tokens is {max_new_tokens}, it must be at least 1")
        if lookahead < 0:
            raise DasError(f"lookahead is {lookahead}, it must be at least 0 (step by step)")
        if beams < 1:
            raise DasError(f"beams is {beams}, it must be at least 1 (greedy, as Algorithm 1)")
        if beams > 1 and lookahead:
            raise DasError(
                f"lookahead is {lookahead} and beams is {beams}: drafts follow one hypothesis; "
                "set lookahead to 0 or beams to 1"
            )
        self.bank, self._lookahead, self._beams = bank, lookahead, beams
        self._model, self._max_new_tokens = model, max_new_tokens
        self._precision: Precision = precision
        self.prompts = Prompts(model.generation, model.config["vocab_size"], self.device)
        self.language = self.prompts.resolve(language)
        self.encoder = encoder or Encoder(model, precision=precision, device=self.device)
        self.decoder = Decoder(model, precision=precision, device=self.device)
        self._unmasked = Vocabulary(model, device=self.device)
        self._first = self._unmasked.masked(self.prompts.begin_mask_V)
        self._rest = self._unmasked.masked(self.prompts.mask_V)
        config = model.config
        self.alignment_heads = alignment_heads(
            model.generation, config["decoder_layers"], config["decoder_attention_heads"]
        )
        # Positions that are fed; the last token of a transcript never is.
        self.capacity = min(self.prompts.length + max_new_tokens, self.decoder.max_length) - 1
        self._encode = Recorded(self.encoder, self.device)
        self._replays = Replays(self, model) if self.device.type == "cuda" else None

    @classmethod
    def load(
        cls, model_folder: Path, adapters: Mapping[str, Path] | None = None, **options
    ) -> "Engine":
        """Read a Whisper folder (safetensors only) and PEFT LoRA folders by name.

        Raises:
            ModelError: The folder is no Whisper model, or an adapter is refused.
        """
        bank = AdapterBank.load(model_folder, adapters or {})
        return cls(read_checkpoint(model_folder), bank, **options)

    def with_decoder(
        self, model_folder: Path, adapters: Mapping[str, Path] | None = None
    ) -> "Engine":
        """Another model that decodes what this engine's encoder says, with the same options.

        Raises:
            ModelError: The folder is no Whisper model, its encoder is another one, or an adapter
                is refused.
        """
        model = read_checkpoint(model_folder)
        mine, others = (m.part("encoder") for m in (self._model, model))
        if mine.keys() != others.keys() or not all(torch.equal(mine[n], others[n]) for n in mine):
            raise ModelError(
                f"{model_folder} has another encoder than {self._model.folder}; load it as a model "
                "of its own"
            )
        same = {n: t for n, t in self._model.tensors.items() if n.startswith("encoder.")}
        return Engine(
            replace(model, tensors=model.tensors | same),  # one copy of them in memory
            AdapterBank.load(model_folder, adapters or {}),
            precision=self._precision,
            device=self.device,
            language=self.language,
            max_new_tokens=self._max_new_tokens,
            lookahead=self._lookahead,
            beams=self._beams,
            encoder=self.encoder,
        )

    @torch.inference_mode()
    def encode(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """Run the encoder, all frames kept. [B, S, D]."""
        whole = mel_BFT.shape[-1] == self.encoder.window
        return self._encode(mel_BFT) if self._replays and whole else self.encoder(mel_BFT)

    @torch.inference_mode()
    def memory(self, h_BSD: torch.Tensor) -> Memory:
        """What every decode of these utterances reads, until the bank changes."""
        self.decoder.rebase(self.bank.common)
        memory = self.decoder.memory(h_BSD)
        return memory if self._replays else memory.project()

    def deltas(self, branches: Sequence[int]) -> Deltas:
        """The changes of these branches, in the engine's form."""
        return self.bank.stack(branches, dtype=self.decoder.dtype, device=self.device)

    def vocabulary(self, first: bool) -> Vocabulary:
        """With the tokens suppressed that may not stand there; ``first``: behind the prompt."""
        return self._first if first else self._rest

    @torch.inference_mode()
    def languages(self, memory: Memory) -> list[str]:
        """The given language, or what the base hears in each utterance."""
        count = len(memory.h_BSD)
        if self.language is not None:
            return [self.language] * count
        state = self.decoder.start(memory, self.deltas((0,)), branches=1)
        x_NBTD = self.decoder.forward(state, self.prompts.start(count))
        return self.prompts.detect(self._unmasked.logits(x_NBTD[0, :, -1]))

    @torch.inference_mode()
    def no_speech(self, memory: Memory, rows: Sequence[int]) -> list[float]:
        """What the base thinks of there being no speech in these utterances, probabilities."""
        state = self.decoder.start(memory, self.deltas((0,)), branches=1, rows=rows)
        x_NBTD = self.decoder.forward(state, self.prompts.start(len(rows)))
        p_BV = self._unmasked.logits(x_NBTD[0, :, -1]).softmax(-1)
        return p_BV[:, self.prompts.no_speech].tolist()

    @torch.inference_mode()
    def decode(
        self,
        memory: Memory,
        languages: Sequence[str],
        strategy: Strategy,
        *,
        branches: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        beams: int | None = None,
        seen: Seen | None = None,
    ) -> list[Trace]:
        """Decode utterances with one strategy, all in step.

        Args:
            memory: What the encoder says.
            languages: Of each utterance that is decoded.
            strategy: Chooses each token; it runs no branch that it does not need.
            branches: The branches to offer to the strategy, all by default.
            rows: The utterances of ``memory`` to decode, all by default.
            beams: In place of the engine's own.
            seen: Keeps what the base attends to, if it decodes, step by step and without beams.

        Raises:
            DasError: The strategy needs a branch that is not among them.
        """
        offered = tuple(range(len(self.bank.names))) if branches is None else tuple(branches)
        columns = strategy.needs(offered)
        if seen is not None:
            seen.forget(range(len(languages)) if rows is None else rows)
        beams = self._beams if beams is None else beams
        if beams > 1:
            options = {"rows": rows, "beams": beams}
            return decode_with_beams(self, memory, languages, strategy, columns, **options)
        if self._lookahead and len(languages) == 1 and len(columns) > 1 and columns[0] == 0:
            row = 0 if rows is None else rows[0]
            options = {"row": row, "draft": self._lookahead}
            return [decode_with_lookahead(self, memory, languages[0], strategy, columns, **options)]
        if self._replays and strategy.static and rows is None and not seen:
            return self._replays.decode(memory.h_BSD, languages, strategy, columns)
        state = self.decoder.start(memory, self.deltas(columns), branches=len(columns), rows=rows)
        if seen and columns[:1] == (0,):
            state.seen = seen
        traces = [Trace(columns, language) for language in languages]
        alive = list(range(len(traces)))
        tokens_BT, vocabulary = self.prompts.build(languages), self.vocabulary(True)
        while alive and state.length < self.capacity:
            # What is seen is wanted of all positions, also in the last layer.
            x_NBTD = self.decoder.forward(state, tokens_BT, last_only=state.seen is None)
            scores = vocabulary.scores(x_NBTD[:, :, -1])
            choice = strategy.choose(scores)
            tokens = self._record(scores, choice, [traces[u] for u in alive])
            tokens_BT, vocabulary = choice.token_B.unsqueeze(1), self.vocabulary(False)
            kept = [row for row, token in enumerate(tokens) if token not in self.prompts.end]
            if len(kept) < len(alive):
                alive = [alive[row] for row in kept]
                if alive:
                    state.keep(kept)
                    tokens_BT = tokens_BT[kept]
        return traces

    @torch.inference_mode()
    def read(
        self, memory: Memory, row: int, language: str, tokens: Sequence[int], seconds: float
    ) -> torch.Tensor:
        """How the base's alignment heads attend to an utterance while it reads a transcript.

        Args:
            memory: What the encoder says.
            row: The utterance in ``memory``.
            language: Of the utterance.
            tokens: Its text tokens, without special ones; R of them.
            seconds: Length of the clip; silence behind it is not attended to.

        Returns:
            `Seen.weights`.
        """
        state = self.decoder.start(memory, self.deltas((0,)), branches=1, rows=[row])
        state.seen = Seen(self.alignment_heads, {row: seconds})
        text_BT = torch.tensor([list(tokens)], dtype=torch.int64, device=self.device)
        self.decoder.forward(state, torch.cat([self.prompts.build([language]), text_BT], 1))
        weights_HTS = state.seen.weights(row)
        assert weights_HTS is not None
        return weights_HTS

    def _record(self, scores: Scores, choice: Choice, traces: Sequence[Trace]) -> list[int]:
        """Append one step to the traces; the tokens."""
        columns = (choice.token_B, choice.branch_B, choice.rule_B, choice.logprob_B)
        tokens, *rest = (x.tolist() for x in columns)
        confidence_BN = scores.c_BN.cpu().numpy()
        for trace, *step in zip(traces, tokens, *rest, confidence_BN, strict=True):
            trace.append(*step)
        return tokens
