"""Exact lookahead for one utterance: the base drafts, the adapters verify several tokens at once.

The base decodes ``draft`` tokens greedily; the adapters then read all of them in one teacher-forced
pass, and the strategy chooses at each position from what all branches say there. Up to the first
choice that differs from the draft, every branch has read what the strategy chose, so the choices
are those of the stepwise loop; behind it, all branches forget what they read and go on from there.

It trades work for fewer and larger products: the adapters' weights, keys and values are read once
a draft in place of once a token, and a deviation throws away the rest of the draft.

Shape suffixes: N branches, T positions fed, P positions drafted, D model width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from das_lib.adml.cross import Memory
from das_lib.adml.scores import Scores
from das_lib.adml.select import Strategy
from das_lib.adml.trace import Trace

if TYPE_CHECKING:
    from das_lib.adml.engine import Engine


def decode_with_lookahead(
    engine: "Engine",
    memory: Memory,
    language: str,
    strategy: Strategy,
    columns: Sequence[int],
    *,
    row: int,
    draft: int,
) -> Trace:
    """Decode one utterance.

    Args:
        engine: The model.
        memory: What the encoder says.
        language: Of the utterance.
        strategy: Chooses each token.
        columns: The branches that run: the base, then at least one adapter.
        row: The utterance in ``memory``.
        draft: Tokens that the base is ahead at the most.
    """
    decoder, end = engine.decoder, engine.prompts.end
    base = decoder.start(memory, engine.deltas(columns[:1]), branches=1, rows=[row])
    rest = decoder.start(memory, engine.deltas(columns[1:]), branches=len(columns) - 1, rows=[row])
    trace = Trace(tuple(columns), language)
    fed_BT = engine.prompts.build([language])
    while base.length < engine.capacity:
        start = base.length + fed_BT.shape[1]
        drafted, scores = [], []
        step_BT = fed_BT
        while len(drafted) < draft and base.length < engine.capacity:
            x_NBTD = decoder.forward(base, step_BT, last_only=True)
            first = not trace.tokens and not drafted
            scores.append(engine.vocabulary(first).scores(x_NBTD[:, :, -1]))
            step_BT = scores[-1].top_tokens(0).unsqueeze(1)
            drafted.append(int(step_BT))
            if drafted[-1] in end:
                break
        drafted_BT = torch.tensor([drafted[:-1]], dtype=fed_BT.dtype, device=fed_BT.device)
        x_NBTD = decoder.forward(rest, torch.cat([fed_BT, drafted_BT], 1))
        x_NPD = x_NBTD[:, 0, -len(drafted) :]
        verified = [engine.vocabulary(False).scores(x_NPD)]
        if not trace.tokens:
            verified = [engine.vocabulary(True).scores(x_NPD[:, :1])]
            if len(drafted) > 1:
                verified.append(engine.vocabulary(False).scores(x_NPD[:, 1:]))
        both = Scores.beside(Scores.below(scores), Scores.below(verified))
        choice = strategy.choose(both)
        tokens = choice.token_B.tolist()
        agreed = next((i for i, t in enumerate(tokens) if t != drafted[i]), len(tokens) - 1) + 1
        trace.extend(choice, both.c_BN, agreed)
        if tokens[agreed - 1] in end:
            break
        base.length = rest.length = start + agreed - 1
        fed_BT = choice.token_B[agreed - 1 : agreed].unsqueeze(1)
    return trace
