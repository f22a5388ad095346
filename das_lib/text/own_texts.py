"""A domain's own texts instead of the LLM's."""

from das_lib.config.tree import Domain, Text
from das_lib.errors import DasError, Reject
from das_lib.rows import Outcome
from das_lib.text.files import read_rows
from das_lib.text.select import Candidate, Selection

COLUMN, LIST_COLUMN = "text", "texts"


def read_own_texts(path: str, domain: Domain, text: Text, language: str | None) -> Outcome:
    """Rows of TEXTS for the texts of a file that pass the filters, once each, as many as wanted.

    The texts are column ``text``, or column ``texts`` with lists of texts; in TXT, lines. Rejected
    with ``no-json`` are lines of JSONL that are no object, with ``no-text`` entries that are no
    string.

    Raises:
        DasError: the file is missing, empty, of another format, or lacks the column; too few texts
            pass for ``domain.held_out``.
    """
    name = path.rsplit("/", 1)[-1]
    candidates: list[Candidate] = []
    rejects: list[Reject] = []
    setting = f"domain {domain.name!r}: texts"
    for number, row in read_rows(path, setting, (COLUMN, LIST_COLUMN)):
        source = f"{name}:{number}"
        if isinstance(row, Reject):
            rejects.append(Reject(source, row.reason, row.detail))
            continue
        entry = row[COLUMN] if COLUMN in row else row[LIST_COLUMN]
        for n, value in enumerate(entry if isinstance(entry, list) else [entry]):
            identity = f"{source}:{n}" if isinstance(entry, list) else source
            if isinstance(value, str) and value.strip():
                candidates.append(Candidate(identity, " ".join(value.split()), source))
            else:
                rejects.append(Reject(identity, "no-text", repr(value)[:200]))
    if not candidates and not rejects:
        raise DasError(f"{setting}={path} holds no text; give a file with some")
    selection = Selection(domain, text, language)
    selection.offer(candidates)
    outcome = selection.outcome()
    return Outcome(outcome.rows, rejects + outcome.rejects)
