"""Texts that say nearly the same: MinHash proposes pairs, their exact Jaccard index decides.

What is proposed for a text grows with the texts taken, so all proposals are looked through at once
by the numbers of their 4-grams; only those that come close are compared letter by letter.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
from datasketch import MinHash, MinHashLSH

SHINGLE = 4  # characters; an error of the hand changes few of them, another name many
BANDS, ROWS = 12, 5
"""A pair of index 0.8 shares a band, and so is proposed, with a chance of 99 %: 1 - (1 - 0.8^5)^12;
one of 0.5 with 32 %, so that few comparisons are in vain."""
COLLISIONS = 0.02
"""Far more than 4-grams of one number can take from a Jaccard index."""


@dataclass(frozen=True)
class Shingles:
    """A text's normal form (see `das_lib.text.filters`) as the set of its 4-grams."""

    form: str

    @cached_property
    def grams(self) -> frozenset[str]:
        """All substrings of 4 characters; the text itself where it is shorter."""
        last = max(1, len(self.form) - SHINGLE + 1)
        return frozenset(self.form[start : start + SHINGLE] for start in range(last))

    @cached_property
    def numbers(self) -> bytes:
        """The 4-grams as 32-bit numbers, in order."""
        found = np.fromiter((zlib.crc32(gram.encode()) for gram in self.grams), np.uint32)
        return np.sort(found).tobytes()

    @cached_property
    def minhash(self) -> MinHash:
        """The signature by which pairs are proposed."""
        signature = MinHash(num_perm=BANDS * ROWS)
        signature.update_batch([gram.encode() for gram in self.grams])
        return signature


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared part of the 4-grams of both, 0 to 1."""
    return len(a.grams & b.grams) / len(a.grams | b.grams)


class NearDuplicates:
    """Texts taken so far."""

    def __init__(self, bound: float) -> None:
        """Texts whose Jaccard index is ``bound`` (0 to 1) or more are near duplicates."""
        self.bound = bound
        self._index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._forms: dict[str, str] = {}
        self._numbers: dict[str, bytes] = {}

    def find(self, text: Shingles) -> str | None:
        """Id of the nearest near duplicate among the texts taken; ties go to the lower id."""
        near = [
            (-jaccard(text, Shingles(self._forms[key])), key)
            for key in self._close([str(key) for key in self._index.query(text.minhash)], text)
        ]
        near = [pair for pair in near if -pair[0] >= self.bound]
        return min(near)[1] if near else None

    def add(self, key: str, text: Shingles) -> None:
        """Take a text."""
        self._index.insert(key, text.minhash, check_duplication=False)
        self._forms[key], self._numbers[key] = text.form, text.numbers

    def _close(self, keys: list[str], text: Shingles) -> Iterable[str]:
        """Those whose numbers say that they may be near duplicates."""
        if not keys:
            return []
        parts = [self._numbers[key] for key in keys]
        own, others = (np.frombuffer(part, np.uint32) for part in (text.numbers, b"".join(parts)))
        counts = np.array([len(part) // own.itemsize for part in parts])
        common = own[np.searchsorted(own, others).clip(max=len(own) - 1)] == others
        shared = np.add.reduceat(common, counts.cumsum() - counts, dtype=np.int64)
        index = shared / (len(own) + counts - shared)
        return compress(keys, index >= self.bound - COLLISIONS)
