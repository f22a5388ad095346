from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.hear import Heard
from das_lib.bulk.rows import from_row, to_row
from das_lib.bulk.transcript import Segment, Transcript, Word
from schemas.bulk import BULK_TRANSCRIPTS
from schemas.validate import validate

SECONDS = st.floats(0, 1e6)
PROBABILITY = st.floats(0, 1, width=32)
WORDS = st.builds(
    Word,
    text=st.text(min_size=1),
    adapter=st.sampled_from(["base", "food"]),
    confidence=PROBABILITY,
    start_s=st.none() | SECONDS,
    end_s=st.none() | SECONDS,
)
SEGMENTS = st.builds(
    Segment,
    start_s=SECONDS,
    end_s=SECONDS,
    text=st.text(),
    avg_logprob=st.floats(-100, 0, width=32),
    compression_ratio=st.floats(0, 100, width=32),
    no_speech_prob=st.none() | PROBABILITY,
    temperature=PROBABILITY,
    words=st.lists(WORDS, max_size=4).map(tuple),
)
TRANSCRIPTS = st.builds(
    Transcript,
    id=st.text(),
    language=st.sampled_from(["en", "yue"]),
    duration_s=SECONDS,
    speech_s=SECONDS,
    segments=st.lists(SEGMENTS, max_size=4).map(tuple),
)


@settings(deadline=None)
@given(st.lists(TRANSCRIPTS, max_size=3, unique_by=lambda transcript: transcript.id))
def test_transcripts_survive_the_table_of_their_schema(transcripts):
    rows = [
        to_row(Heard(transcript=t), model="tiny", adapters=["food@1f"], seconds=1.5)
        for t in transcripts
    ]
    table = pa.Table.from_pylist(rows, BULK_TRANSCRIPTS)
    validate(table, BULK_TRANSCRIPTS)
    read = table.to_pylist()
    assert [from_row(row) for row in read] == transcripts
    assert [row["text"] for row in read] == [transcript.text for transcript in transcripts]


def test_a_row_says_who_transcribed_how_it_came_about_and_how_long_it_took(tmp_path):
    quiet = Transcript(id="calls/é.wav", language="en", duration_s=3.0, speech_s=0.0)
    counts = Counter({"unlikely": 2, "hole": 1})
    heard = Heard(transcript=quiet, counts=counts, windows=4, batches=0.75)
    row = to_row(heard, model="tiny", adapters=("food@1f", "law@2e"), seconds=0.25)
    pq.write_table(pa.Table.from_pylist([row], BULK_TRANSCRIPTS), tmp_path / "block.parquet")
    (read,) = pq.read_table(tmp_path / "block.parquet").to_pylist()
    assert (read["model"], read["adapters"]) == ("tiny", ["food@1f", "law@2e"])
    assert (read["windows"], read["batches"], read["seconds"]) == (4, 0.75, 0.25)
    assert read["guards"] == ["hole", "unlikely", "unlikely"]
    assert (read["text"], from_row(read)) == ("", quiet)
