"""Word times from cross-attention, as openai/whisper finds them (``timing.py``).

Some of Whisper's heads (``alignment_heads`` of its generation configuration) look at the frames of
the token that comes next. The base reads the finished transcript once; dynamic time warping of
those heads' mean attention then gives every token a frame at which it begins. The base alone reads,
whoever chose the tokens: the heads were found on it, and adapters may have moved their own.

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

from das_lib.adml.decoder import Memory
from das_lib.adml.result import Word

if TYPE_CHECKING:
    from das_lib.adml.engine import Engine

FRAMES_PER_SECOND = 50
FILTER = 7  # frames of the median filter, openai/whisper's


def alignment_heads(generation: Mapping[str, Any], layers: int, heads: int) -> list[list[int]]:
    """Pairs of layer and head; all heads of the upper half where the model names none."""
    named = generation.get("alignment_heads")
    return named or [[i, h] for i in range(layers // 2, layers) for h in range(heads)]


def place_words(
    engine: "Engine",
    memory: Memory,
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
        row: The utterance in ``memory``.
        language: Of the utterance.
        tokens: Its text tokens, which ``words`` count in; without special ones.
        words: Its words.
        seconds: Length of the clip; silence behind it is not attended to.
    """
    if not words:
        return []
    frames = min(max(1, round(seconds * FRAMES_PER_SECOND)), memory.h_BSD.shape[1])
    weights_HTS = engine.read(memory, row, language, tokens, frames)
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
        padded = F.pad(weights_HTS, (FILTER // 2, FILTER // 2), mode="reflect")
        weights_HTS = padded.unfold(-1, FILTER, 1).median(-1).values
    return weights_HTS.mean(0)


def token_frames(cost_RS: np.ndarray) -> np.ndarray:
    """The frame at which each row begins on the cheapest monotonic path (time warping). [R].

    Diagonal by diagonal, for all cells of one depend on the two before it alone.
    """
    rows, frames = cost_RS.shape
    total = np.full((rows + 1, frames + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(rows + frames - 1):
        r = np.arange(max(0, diagonal - frames + 1), min(rows, diagonal + 1))
        s = diagonal - r
        least = np.minimum(np.minimum(total[r, s], total[r, s + 1]), total[r + 1, s])
        total[r + 1, s + 1] = cost_RS[r, s] + least
    begin = np.zeros(rows, dtype=np.int64)
    r, s = rows, frames
    while r > 0 and s > 0:
        begin[r - 1] = s - 1
        before = total[r - 1, s - 1], total[r - 1, s], total[r, s - 1]
        step = int(np.argmin(before))
        r, s = r - (step != 2), s - (step != 1)
    return begin
