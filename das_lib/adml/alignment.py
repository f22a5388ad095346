"""Word times from cross-attention, as openai/whisper finds them (``timing.py``).

Some of Whisper's heads (``alignment_heads`` of its generation configuration) look at the frames of
the token that comes next. Dynamic time warping of those heads' mean attention gives every token a
frame at which it begins. It is the base's attention, whoever chose the tokens: the heads were found
on it, and adapters may have moved their own. Where the base is among the branches that decode, it
reads the transcript anyway, and `Seen` keeps what it attends to; else it reads it once more.

Off by default; the text does not change. Approximate: a boundary is off by some tens of
milliseconds, by more around silence.

Shape suffixes: H alignment heads, T tokens with prompt and end, S encoder frames, R tokens of text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.result import Word

if TYPE_CHECKING:
    from das_lib.adml.cross import Memory
    from das_lib.adml.engine import Engine

FRAMES_PER_SECOND = 50
FILTER = 7  # frames of the median filter, openai/whisper's


def alignment_heads(generation: Mapping[str, Any], layers: int, heads: int) -> list[list[int]]:
    """Pairs of layer and head; all heads of the upper half where the model names none."""
    named = generation.get("alignment_heads")
    return named or [[i, h] for i in range(layers // 2, layers) for h in range(heads)]


class Seen:
    """What the alignment heads of branch 0 attend to in a decode, position by position."""

    def __init__(self, heads: Sequence[Sequence[int]], seconds: Mapping[int, float]) -> None:
        """Watch utterances.

        Args:
            heads: Pairs of layer and head.
            seconds: Length of each clip to watch, by its place in the memory; silence behind it
                counts for nothing.
        """
        self._heads = heads
        self._frames = {u: max(1, round(s * FRAMES_PER_SECOND)) for u, s in seconds.items()}
        self._passes: dict[int, list[tuple[Sequence[int], torch.Tensor]]] = {
            i: [] for i, _ in heads
        }
        """By layer, utterances and their scores. [B, H, T, S]"""
        self._indexes: dict[int, torch.Tensor] = {}

    def __bool__(self) -> bool:
        """Whether any utterance is watched."""
        return bool(self._frames)

    def forget(self, utterances: Sequence[int]) -> None:
        """Drop what was kept of them; they are decoded again."""
        for layer, passes in self._passes.items():
            left = [([-1 if u in utterances else u for u in us], kept) for us, kept in passes]
            self._passes[layer] = [(us, kept) for us, kept in left if any(u >= 0 for u in us)]

    def look(
        self, layer: int, length: int, utterances: Sequence[int], s_BHMS: torch.Tensor
    ) -> None:
        """Keep the heads' scores, before the softmax, at the positions of a pass.

        Args:
            layer: Of the decoder.
            length: Positions of the pass, T.
            utterances: Places in the memory, B of them.
            s_BHMS: The first T of the M queries are branch 0's. A copy is kept.
        """
        if layer not in self._passes or not any(u in self._frames for u in utterances):
            return
        if layer not in self._indexes:  # once: a GPU would wait for each copy
            heads = [head for i, head in self._heads if i == layer]
            self._indexes[layer] = torch.tensor(heads, device=s_BHMS.device)
        kept_BHTS = s_BHMS[:, :, :length].index_select(1, self._indexes[layer])
        self._passes[layer].append((tuple(utterances), kept_BHTS))

    def weights(self, utterance: int) -> torch.Tensor | None:
        """Probabilities behind each token that was fed, layer by layer. [H, T, S]."""
        if utterance not in self._frames:
            return None
        layers = []
        for passes in self._passes.values():
            seen = [kept[us.index(utterance)] for us, kept in passes if utterance in us]
            if not seen:
                return None
            layers.append(torch.cat(seen, 1))
        return torch.cat(layers)[..., : self._frames[utterance]].float().softmax(-1)


def place_words(
    engine: "Engine",
    memory: "Memory",
    seen: Seen,
    row: int,
    language: str,
    tokens: Sequence[int],
    words: Sequence[Word],
    seconds: float,
) -> list[Word]:
    """The words with their times in the clip.

    Args:
        engine: The model.
        memory: What the encoder says.
        seen: What the decode kept; where that is not the whole transcript, it is read again.
        row: The utterance in ``memory``.
        language: Of the utterance.
        tokens: Its text tokens, which ``words`` count in; without special ones.
        words: Its words.
        seconds: Length of the clip.
    """
    if not words:
        return []
    weights_HTS = seen.weights(row)
    if weights_HTS is None or weights_HTS.shape[1] != engine.prompts.length + len(tokens):
        weights_HTS = engine.read(memory, row, language, tokens, seconds)
    # The position that predicts a token looks at it: one before the token itself.
    start = engine.prompts.length - 1
    matrix_RS = emphasize(weights_HTS)[start : start + len(tokens) + 1]
    begin_R = token_frames(-matrix_RS.double().cpu().numpy()) / FRAMES_PER_SECOND
    return [
        replace(word, start_s=float(begin_R[word.start]), end_s=float(begin_R[word.end]))
        for word in words
    ]


def emphasize(weights_HTS: torch.Tensor) -> torch.Tensor:
    """Mean over heads of attention normalised over tokens and smoothed over frames. [T, S]."""
    spread_H1S, mean_H1S = torch.std_mean(weights_HTS, -2, keepdim=True, correction=0)
    weights_HTS = (weights_HTS - mean_H1S) / spread_H1S.clamp_min(1e-12)
    if weights_HTS.shape[-1] > FILTER // 2:  # reflection needs as many frames
        frames = weights_HTS.shape[-1]
        padded = F.pad(weights_HTS, (FILTER // 2, FILTER // 2), mode="reflect")
        weights_HTS = median([padded[..., i : i + frames] for i in range(FILTER)])
    return weights_HTS.mean(0)


def median(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Element by element, of an odd number of tensors; far faster than ``torch.median``.

    Of more than half of them, the least and the greatest are not the median of all: both leave,
    the next comes in.
    """
    held, rest = list(values[: len(values) // 2 + 2]), list(values[len(values) // 2 + 2 :])
    while len(held) > 1:
        for i in range(len(held) - 1):  # the greatest to the end
            a, b = held[i], held[i + 1]
            held[i], held[i + 1] = torch.minimum(a, b), torch.maximum(a, b)
        for i in range(len(held) - 2, 0, -1):  # the least to the front
            a, b = held[i - 1], held[i]
            held[i - 1], held[i] = torch.minimum(a, b), torch.maximum(a, b)
        held = held[1:-1] + rest[:1]
        del rest[:1]
    return held[0]


def token_frames(cost_RS: np.ndarray) -> np.ndarray:
    """The frame at which each row begins on the cheapest monotonic path (time warping). [R].

    Row by row: with C the sums of a row's costs from its left, the cheapest path that enters it at
    frame e and stays to s costs C_s + (what led to e) - C_(e-1), so the least over all e up to s is
    a running minimum.
    """
    rows, frames = cost_RS.shape
    total = np.full((rows + 1, frames + 1), np.inf)
    total[0, 0] = 0
    for r in range(rows):
        entered = np.minimum(total[r, :-1], total[r, 1:])
        sums = np.cumsum(cost_RS[r])
        entered[1:] -= sums[:-1]
        total[r + 1, 1:] = sums + np.minimum.accumulate(entered)
    begin = np.zeros(rows, dtype=np.int64)
    r, s = rows, frames
    while r > 0 and s > 0:
        begin[r - 1] = s - 1
        before = total[r - 1, s - 1], total[r - 1, s], total[r, s - 1]
        step = int(np.argmin(before))
        r, s = r - (step != 2), s - (step != 1)
    return begin
