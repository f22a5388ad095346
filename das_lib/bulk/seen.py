"""Ids that came before, in little memory."""

import hashlib
from array import array

MIN_SLOTS = 1024


class SeenIds:
    """A set of the 64-bit hashes of ids: 12 to 24 bytes each, however long the ids are.

    Two of n different ids share a hash with a chance of n^2 / 2^65: 3e-4 for 10^8 ids.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * MIN_SLOTS))  # a hash table; 0: free
        self._count = 0
        self._sightings: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, id: str) -> bool:
        """Keep an id; False: it came before."""
        return self._add(_hash(id))

    def unique(self, id: str) -> str:
        """Keep the id, or, if it came before, ``id#n`` for its n-th sighting; what was kept."""
        key = _hash(id)
        if self._add(key):
            return id
        while True:
            number = self._sightings[key] = self._sightings.get(key, 1) + 1
            if self.add(f"{id}#{number}"):
                return f"{id}#{number}"

    def _add(self, key: int) -> bool:
        if not _put(self._slots, key):
            return False
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            slots = array("Q", bytes(16 * len(self._slots)))
            for kept in self._slots:
                if kept:
                    _put(slots, kept)
            self._slots = slots
        return True


def _put(slots: "array[int]", key: int) -> bool:
    """Linear probing; the number of slots is a power of two."""
    mask = len(slots) - 1
    place = key & mask
    while slots[place]:
        if slots[place] == key:
            return False
        place = (place + 1) & mask
    slots[place] = key
    return True


def _hash(id: str) -> int:
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
