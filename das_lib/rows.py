"""What a stage makes of a block of rows: good rows and counted rejections."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from das_lib.errors import Reject


@dataclass(frozen=True, slots=True)
class Outcome:
    """``rows``: the good rows in the stage's schema; ``rejects``: one `Reject` for each other row.

    A stage that maps row to row has ``rows.num_rows + len(rejects)`` equal to its input rows.
    ``amount`` is what the stage is measured in beside rows (seconds of audio, tokens).
    """

    rows: pa.Table
    rejects: list[Reject] = field(default_factory=list)
    amount: float = 0.0

    def __add__(self, other: "Outcome") -> "Outcome":
        """Both, of other rows each."""
        rows = pa.concat_tables([self.rows, other.rows])
        return Outcome(rows, [*self.rejects, *other.rejects], self.amount + other.amount)


Process = Callable[[pa.Table], Outcome]
"""A stage's work on one block; holds its model, knows nothing of Ray or of folders."""
