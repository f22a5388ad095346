"""Candidates -> texts: filters, duplicates, the number wanted, the split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from das_lib.config.tree import Domain, Text
from das_lib.errors import DasError, Reject
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.text.codec import example_texts, parse_texts
from das_lib.text.filters import check_text, normal_form
from schemas.text import TEXTS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may be taken; ``id`` is unique among candidates, ``source`` is kept with it."""

    id: str
    text: str
    source: str


def build_texts(domain: Domain, replies: pa.Table, text: Text) -> tuple[Outcome, int]:
    """Rows of TEXTS from rows of REPLIES, and the number of candidates.

    A reply that is no list counts as one candidate. The outcome depends on the set of replies
    only, not on their order.

    Raises:
        DasError: some texts were accepted, but not more than are held out.
    """
    candidates: list[Candidate] = []
    rejects: list[Reject] = []
    for row in replies.select(["id", "reply"]).to_pylist():
        found = parse_texts(row["id"], row["reply"])
        if isinstance(found, Reject):
            rejects.append(found)
            continue
        candidates += [Candidate(f"{row['id']}-{n}", t, row["id"]) for n, t in enumerate(found)]
    recited = {normal_form(example): "prompt's example" for example in example_texts()}
    outcome = accept(domain, candidates, text, recited)
    rejects += outcome.rejects
    return Outcome(outcome.rows, rejects), outcome.rows.num_rows + len(rejects)


def accept(
    domain: Domain,
    candidates: Iterable[Candidate],
    text: Text,
    known: Mapping[str, str] | None = None,
) -> Outcome:
    """The candidates that pass the filters, once each, at most ``domain.utterances``.

    ``known`` holds normal forms that are duplicates from the start, each with where it is from.
    Candidates are taken in the order of their rows' ids, which are hashes: those taken
    are a fair sample of all replies, and the held-out ones a fair sample of those.

    Raises:
        DasError: some texts were accepted, but not more than are held out.
    """
    rejects: list[Reject] = []
    accepted: list[dict[str, str]] = []
    seen = dict(known or {})
    keyed = sorted((row_id(domain.name, c.text), c.id, c) for c in candidates)
    for identity, _, candidate in keyed:
        form = normal_form(candidate.text)
        reason, detail = check_text(candidate.text, text), candidate.text[:200]
        if reason is None and form in seen:
            reason, detail = "duplicate", f"{seen[form]}: {detail}"
        if reason is None:
            seen[form] = identity
            reason = "surplus" if len(accepted) == domain.utterances else None
        if reason is not None:
            rejects.append(Reject(candidate.id, reason, detail))
            continue
        accepted.append(
            {
                "id": identity,
                "domain": domain.name,
                "text": candidate.text,
                "split": "test" if len(accepted) < domain.held_out else "train",
                "source": candidate.source,
            }
        )
    if accepted and len(accepted) <= domain.held_out:
        raise DasError(
            f"domain {domain.name!r}: {len(accepted)} texts were accepted and "
            f"held_out={domain.held_out} of them are for testing, which leaves none to train on; "
            "lower held_out, or give more texts (text.instructions_per_seed, seeds)"
        )
    return Outcome(pa.Table.from_pylist(accepted, schema=TEXTS), rejects)
