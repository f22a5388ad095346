"""No transcript that word errors are measured on is learnt from: a check by normalised text."""

from collections.abc import Mapping

import pyarrow as pa

from das_lib.config.tree import Config
from das_lib.corpus import read_manifest
from das_lib.text.filters import normal_form

REASON = "test-transcript"


def leaked_ids(config: Config, texts: Mapping[str, pa.Table]) -> dict[str, list[str]]:
    """Texts for training that sound like the transcript of any test recording.

    Test recordings are those of the configured test sets and the utterances held out, of every
    domain: what one domain holds out, another must not learn either.

    Args:
        config: Names the test sets.
        texts: Rows of TEXTS (id, text, split) of the domains whose texts are written.

    Returns:
        Sorted ids by domain, where there are any.

    Raises:
        DasError: a manifest cannot be read.
    """
    tested = {
        normal_form(text)
        for test_set in config.evaluation.test_sets
        for text in _texts(read_manifest(test_set.manifest, test_set.name)[0].rows)
    }
    rows = {domain: table.to_pylist() for domain, table in texts.items()}
    tested |= {normal_form(r["text"]) for some in rows.values() for r in some if _tests(r)}
    tested.discard("")
    leaked = {
        domain: sorted(r["id"] for r in some if not _tests(r) and normal_form(r["text"]) in tested)
        for domain, some in rows.items()
    }
    return {domain: ids for domain, ids in leaked.items() if ids}


def _texts(corpus: pa.Table) -> list[str]:
    return corpus["text"].drop_null().to_pylist()


def _tests(row: Mapping[str, str]) -> bool:
    return row["split"] == "test"
