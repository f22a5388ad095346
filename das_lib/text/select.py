"""Candidates -> texts: filters, duplicates, the number wanted, the split."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import pyarrow as pa

from das_lib.config.tree import Domain, Text
from das_lib.errors import DasError, Reject
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.text.codec import example_texts, parse_texts
from das_lib.text.duplicates import NearDuplicates, Shingles
from das_lib.text.filters import Filters, normal_form
from das_lib.text.relevance import Relevance
from schemas.text import TEXTS

CHUNK = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may be taken; ``id`` is unique among candidates, ``source`` is kept with it."""

    id: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Yield:
    """What one round gave."""

    candidates: int
    accepted: int

    @property
    def share(self) -> float:
        """Accepted part of the candidates."""
        return self.accepted / max(self.candidates, 1)


class Selection:
    """The texts of one domain, taken round by round.

    A round's candidates are taken in the order of their rows' ids, which are hashes: those taken
    are a fair sample of the round, whatever the order in which the replies came.
    """

    def __init__(
        self,
        domain: Domain,
        text: Text,
        language: str | None,
        relevance: Relevance | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            domain: How many texts are wanted, and held out.
            text: The bounds.
            language: What the texts must be in, None for any.
            relevance: Tells which texts are on the domain; None takes any.
        """
        self.domain = domain
        self._relevance = relevance
        self._margin = text.on_domain.margin if text.on_domain else 0.0
        self._filters = Filters(text, language)
        self._near = NearDuplicates(text.near_duplicate)
        self._seen: dict[str, str] = {}
        self._accepted: list[dict[str, str]] = []
        self._rejects: list[Reject] = []

    @property
    def missing(self) -> int:
        """Texts still wanted."""
        return self.domain.utterances - len(self._accepted)

    def offer_replies(
        self, replies: Iterable[pa.Table], kept: AbstractSet[str] | None = None
    ) -> Yield:
        """Take from blocks of REPLIES; a reply that is no list counts as one candidate.

        Of replies that are not among the ``kept`` ids, where there are any, nothing is taken; each
        is rejected as ``low-contrast``.
        """
        # A small model may recite the prompt.
        self._seen |= {normal_form(example): "prompt's example" for example in example_texts()}
        unread: list[Reject] = []
        taken = self.offer(_read_replies(replies, kept, unread))
        self._rejects += unread
        return Yield(taken.candidates + len(unread), taken.accepted)

    def offer(self, candidates: Iterable[Candidate]) -> Yield:
        """Take what passes the filters and is new, as long as texts are wanted."""
        keyed = sorted((row_id(self.domain.name, c.text), c.id, c) for c in candidates)
        before = len(self._accepted)
        for start in range(0, len(keyed), CHUNK):
            chunk = keyed[start : start + CHUNK]
            for (identity, _, candidate), lead in zip(chunk, self._leads(chunk), strict=True):
                fault = self._fault(identity, candidate.text, lead)
                if fault is not None:
                    self._rejects.append(Reject(candidate.id, *fault))
                    continue
                self._accepted.append(
                    {
                        "id": identity,
                        "domain": self.domain.name,
                        "text": candidate.text,
                        "source": candidate.source,
                    }
                )
        return Yield(len(keyed), len(self._accepted) - before)

    def _leads(self, chunk: list[tuple[str, str, Candidate]]) -> Sequence[float]:
        if self._relevance is None or not self.missing:
            return [1.0] * len(chunk)
        return self._relevance.leads([candidate.text for *_, candidate in chunk]).tolist()

    def outcome(self) -> Outcome:
        """Rows of TEXTS and every rejection.

        Held out are the texts with the lowest ids, a fair sample of all rounds.

        Raises:
            DasError: some texts were accepted, but not more than are held out.
        """
        accepted, held_out = sorted(self._accepted, key=lambda row: row["id"]), self.domain.held_out
        if accepted and len(accepted) <= held_out:
            raise DasError(
                f"domain {self.domain.name!r}: {len(accepted)} texts were accepted and "
                f"held_out={held_out} of them are for testing, which leaves none to train on; "
                "lower held_out, or give more texts (text.instructions_per_seed, seeds)"
            )
        rows = [
            {**row, "split": "test" if number < held_out else "train"}
            for number, row in enumerate(accepted)
        ]
        return Outcome(pa.Table.from_pylist(rows, schema=TEXTS), self._rejects)

    def _fault(self, identity: str, text: str, lead: float) -> tuple[str, str] | None:
        """Reason and detail of a rejection; None takes the text."""
        reason = self._filters.check(text)
        if reason is not None:
            return reason, text[:200]
        form = normal_form(text)
        if form in self._seen:
            return "duplicate", f"{self._seen[form]}: {text[:200]}"
        self._seen[form] = identity
        if not self.missing:
            return "surplus", text[:200]
        if lead < self._margin:
            return "off-domain", f"{lead:.2f}: {text[:200]}"
        shingles = Shingles(form)
        near = self._near.find(shingles)
        if near is not None:
            return "near-duplicate", f"{near}: {text[:200]}"
        self._near.add(identity, shingles)
        return None


def _read_replies(
    replies: Iterable[pa.Table], kept: AbstractSet[str] | None, unread: list[Reject]
) -> Iterator[Candidate]:
    for block in replies:
        for row in block.select(["id", "reply"]).to_pylist():
            if kept is not None and row["id"] not in kept:
                unread.append(Reject(row["id"], "low-contrast", row["reply"][:200]))
                continue
            found = parse_texts(row["id"], row["reply"])
            if isinstance(found, Reject):
                unread.append(found)
                continue
            for number, text in enumerate(found):
                yield Candidate(f"{row['id']}-{number}", text, row["id"])
