"""The datasets of a bulk transcription, filled by hand."""

from collections import Counter

import pyarrow as pa

from das_lib.bulk.hear import Heard
from das_lib.bulk.recording import Recording
from das_lib.bulk.rows import to_row
from das_lib.bulk.summary import summarise
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.dataset import Dataset
from das_lib.errors import Reject
from das_lib.rows import Outcome
from das_lib.storage import Folder
from schemas.bulk import BULK_TRANSCRIPTS, RECORDINGS


class Output:
    """The datasets of an output, a block at a time."""

    def __init__(self, folder):
        root = Folder(folder)
        self.recordings = Dataset(root / "recordings", RECORDINGS, "recordings", "corpus")
        self.transcripts = Dataset(root / "transcripts", BULK_TRANSCRIPTS, "transcripts", "corpus")

    def listed(self, block, *ids, rejects=(), extra=None):
        rows = [Recording(id=id, url=f"{id}.wav", extra=extra).to_row() for id in ids]
        commit(self.recordings, block, rows, rejects)

    def heard(self, block, *heard, rejects=()):
        rows = [to_row(h, model="tiny", adapters=[], seconds=1.0) for h in heard]
        commit(self.transcripts, block, rows, rejects)

    def summary(self):
        return summarise(self.recordings, self.transcripts)


def commit(dataset, block, rows, rejects):
    rejects = [Reject(id, reason) for id, reason in rejects]
    dataset.commit(block, Outcome(pa.Table.from_pylist(rows, schema=dataset.schema), rejects))


def heard(id, *adapters, duration_s=10.0, speech_s=8.0, guards=(), windows=0, batches=0.0):
    """A transcript with a word of each adapter."""
    words = tuple(Word(text=name, adapter=name, confidence=0.5) for name in adapters)
    segment = Segment(
        start_s=0.0,
        end_s=speech_s,
        text=" ".join(adapters),
        avg_logprob=-0.1,
        compression_ratio=1.0,
        words=words,
    )
    transcript = Transcript(
        id=id,
        language="en",
        duration_s=duration_s,
        speech_s=speech_s,
        segments=(segment,) if adapters else (),
    )
    return Heard(transcript=transcript, counts=Counter(guards), windows=windows, batches=batches)
