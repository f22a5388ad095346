"""The recordings of a corpus as a dataset: growth, a listing that is killed, blocks, memory."""

import json
import tracemalloc
from itertools import chain, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.corpus import MAX_BLOCK_BYTES, add_recordings, count_rows, known_ids
from das_lib.bulk.sources import list_recordings
from das_lib.dataset import Dataset
from das_lib.errors import StorageError
from das_lib.storage import Folder
from schemas.bulk import RECORDINGS


@pytest.fixture
def recordings(tmp_path):
    return dataset(tmp_path / "out")


def dataset(folder):
    return Dataset(Folder(folder), RECORDINGS, "recordings", "corpus")


def manifest(path, *entries):
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return str(path)


def names(count, start=0):
    return [{"audio": f"{i:06d}.wav"} for i in range(start, start + count)]


def add(recordings, source, per_block=4):
    return add_recordings(list_recordings(str(source)), recordings, per_block)


def contents(recordings):
    """Ids by block, in the order of the blocks."""
    return {
        name.removesuffix(".parquet"): table["id"].to_pylist()
        for name, table in zip(
            recordings.data.names(".parquet"), recordings.tables(["id"]), strict=True
        )
    }


def test_a_corpus_is_listed_in_blocks_of_one_row_group_each(recordings, tmp_path):
    assert add(recordings, manifest(tmp_path / "m.jsonl", *names(10))) == 10
    found = contents(recordings)
    assert list(found) == ["0000-000000", "0000-000001", "0000-000002"]
    assert [len(ids) for ids in found.values()] == [4, 4, 2]
    assert list(chain(*found.values())) == [f"{i:06d}.wav" for i in range(10)]
    assert [(b.name, b.num_rows) for b in recordings.blocks()] == [
        (name, len(ids)) for name, ids in found.items()
    ]
    assert recordings.read().to_pylist()[3]["url"] == str(tmp_path / "000003.wav")


def test_a_block_of_more_rows_than_a_row_group_is_still_one(recordings, tmp_path):
    add(recordings, manifest(tmp_path / "m.jsonl", *names(150)), per_block=150)
    assert [block.num_rows for block in recordings.blocks()] == [150]


def test_a_corpus_that_grew_adds_blocks_for_what_is_new_alone(recordings, tmp_path):
    path = tmp_path / "m.jsonl"
    add(recordings, manifest(path, *names(6)))
    before = contents(recordings)
    assert add(recordings, path) == 0
    assert contents(recordings) == before
    # Two have left the corpus; what was listed of them stays.
    assert add(recordings, manifest(path, *names(8, start=2))) == 4
    after = contents(recordings)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"0001-000000"}
    assert after["0001-000000"] == [f"{i:06d}.wav" for i in range(6, 10)]
    assert len(known_ids(recordings)) == 10


def test_what_was_rejected_is_not_listed_again(recordings, tmp_path):
    bad = [{"text": "no audio"}, {"audio": "a.wav"}, {"audio": "a.wav"}]
    path = manifest(tmp_path / "m.jsonl", *bad, *names(2))
    assert add(recordings, path) == 5
    assert add(recordings, path) == 0
    assert count_rows(recordings) == (3, 2)
    assert recordings.reasons() == {"no-audio": 1, "duplicate-id": 1}


def test_the_ten_thousandth_growth_replaces_nothing(recordings, tmp_path):
    path = tmp_path / "m.jsonl"
    add(recordings, manifest(path, *names(1)))
    (first,) = recordings.data.names()
    last = recordings.data.read(first)
    recordings.data.write("9999-000000.parquet", last)
    for count in (2, 3):
        add(recordings, manifest(path, *names(count)))
    assert set(contents(recordings)) == {f"{n}-000000" for n in ("0000", "9999", "10000", "10001")}


class KilledError(Exception):
    """The process ends here."""


def test_a_listing_that_was_killed_goes_on(recordings, tmp_path):
    path = manifest(tmp_path / "m.jsonl", *names(20))

    def dying():
        yield from islice(list_recordings(path), 10)
        raise KilledError

    with pytest.raises(KilledError):
        add_recordings(dying(), recordings, 4)
    assert count_rows(recordings) == (8, 0)
    assert add(recordings, path) == 12
    found = contents(recordings)
    assert sorted(chain(*found.values())) == [f"{i:06d}.wav" for i in range(20)]
    assert len(found) == 5
    assert add(recordings, path) == 0


class Full(Folder):
    """Storage on which nothing can be written."""

    def write(self, name, content):
        raise StorageError(f"cannot write {name}: the disk is full")


@pytest.mark.parametrize("committed", [0, 1])
def test_rejects_of_a_block_that_was_killed_are_kept(tmp_path, committed):
    path, folder = tmp_path / "m.jsonl", tmp_path / "out"
    lines = [*names(3 * committed), {"text": "no audio"}, *names(2, start=10)]
    manifest(path, *lines)
    dying = dataset(folder)
    if committed:
        add(dying, manifest(path, *names(3)), per_block=3)
        manifest(path, *lines)
    dying.data = Full(dying.data.url)
    with pytest.raises(StorageError):
        add(dying, path)
    assert count_rows(dying) == (3 * committed, 1)
    after = dataset(folder)
    manifest(path, *lines, {"text": "again no audio"})
    add(after, path)
    assert count_rows(after) == (3 * committed + 2, 2)
    assert len(after.committed_ids()) == 3 * committed + 4


@settings(deadline=None, max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(["good", "no-audio", "twice"]), min_size=1, max_size=40),
    per_block=st.integers(1, 9),
)
def test_every_line_is_a_row_or_a_reject_and_blocks_are_not_too_large(
    tmp_path_factory, kinds, per_block
):
    folder = tmp_path_factory.mktemp("any")
    entries = {"good": lambda i: {"audio": f"{i}.wav"}, "no-audio": lambda i: {"text": "x"}}
    lines = [entries.get(kind, lambda i: {"audio": "twice.wav"})(i) for i, kind in enumerate(kinds)]
    recordings = dataset(folder / "out")
    assert add(recordings, manifest(folder / "m.jsonl", *lines), per_block) == len(kinds)
    rows = kinds.count("good") + ("twice" in kinds)
    assert count_rows(recordings) == (rows, len(kinds) - rows)
    assert len(recordings.committed_ids()) == len(kinds)
    assert all(0 < len(ids) <= per_block for ids in contents(recordings).values())
    assert len(recordings.committed()) == -(-len(kinds) // per_block)


def test_long_recordings_share_a_block_up_to_a_bound_of_bytes(recordings, tmp_path):
    megabytes = {"a": 40, "b": 24, "c": 1, "d": 100, "e": 1, "f": 63}
    (tmp_path / "in").mkdir()
    for name, size in megabytes.items():
        with open(tmp_path / "in" / f"{name}.wav", "wb") as file:
            file.truncate(size * 2**20)
    assert MAX_BLOCK_BYTES == 64 * 2**20
    add(recordings, tmp_path / "in", per_block=5)
    blocks = [[id[0] for id in ids] for ids in contents(recordings).values()]
    assert blocks == [["a", "b"], ["c"], ["d"], ["e", "f"]]


def peak(work):
    """Bytes of Python's heap that the work needs at most, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_the_memory_for_a_file_is_that_of_its_hash(recordings, tmp_path):
    add(dataset(tmp_path / "warm"), manifest(tmp_path / "warm.jsonl", *names(3)))
    path, count = tmp_path / "m.jsonl", 100_000
    with open(path, "w") as file:
        for i in range(count):
            name = f"some/long/folder/{i // 1000:04d}/recording-{i:08d}.flac"
            file.write(json.dumps({"audio": name, "speaker": f"speaker {i}"}) + "\n")
    # Two sets of hashes with 24 bytes for each at most, one of which is being copied to grow. An
    # object for each file would take five times as much.
    bound = 100 * count
    assert peak(lambda: add(recordings, path, per_block=500)) < bound
    assert count_rows(recordings) == (count, 0)
    assert peak(lambda: add(recordings, path, per_block=500)) < bound, "all of them are known"
    assert count_rows(recordings) == (count, 0)
