import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das_lib.dataset import Dataset, read_block
from das_lib.errors import DasError, Reject, StorageError
from das_lib.rows import Outcome
from das_lib.storage import Folder
from schemas.text import TEXTS


def rows(*ids, text="what is the weather"):
    return pa.Table.from_pylist(
        [{"id": i, "domain": "d", "text": text, "split": "train", "source": "s"} for i in ids],
        schema=TEXTS,
    )


@pytest.fixture
def dataset(tmp_path):
    return Dataset(Folder(tmp_path / "texts" / "d-1"), TEXTS, "texts", "d")


def test_a_finished_dataset_adds_up_and_opens_with_datasets(dataset, tmp_path):
    dataset.begin({"stage": "texts"})
    dataset.commit("b0", Outcome(rows("1", "2"), [Reject("3", "too-short", "x")]))
    dataset.commit("b1", Outcome(rows("4")))
    assert not dataset.finished
    summary = dataset.finish(4, 1.5, {"das": "0"})
    assert dataset.finished
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (4, 3, 1)
    assert summary.reasons == {"too-short": 1}
    assert dataset.summary() == summary
    import datasets

    files = dataset.files()
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    assert loaded["train"]["id"] == ["1", "2", "4"]
    assert sorted(p.name for p in (tmp_path / "texts" / "d-1").iterdir()) == [
        "config.json",
        "data",
        "rejects",
        "summary.json",
    ]


def test_a_block_written_twice_replaces_itself(dataset):
    for _ in range(2):
        dataset.commit("b0", Outcome(rows("1"), [Reject("2", "silent")]))
    assert dataset.finish(2, 0, {}).rows_out == 1


def test_a_dataset_that_lacks_rows_is_never_taken_for_whole(dataset):
    dataset.commit("b0", Outcome(rows("1")))
    with pytest.raises(StorageError, match="2 rows went in, 1 came out"):
        dataset.finish(2, 0, {})
    assert not dataset.finished


def test_a_row_that_came_twice_is_found(dataset):
    dataset.commit("b0", Outcome(rows("1")))
    dataset.commit("b1", Outcome(rows("1")))
    with pytest.raises(StorageError, match="1 of them twice"):
        dataset.finish(2, 0, {})


def test_rejects_are_written_before_the_block_counts_as_committed(dataset, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset.data, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        dataset.commit("b0", Outcome(rows("1"), [Reject("2", "silent")]))
    monkeypatch.undo()
    assert dataset.committed() == set()
    dataset.commit("b0", Outcome(rows("1"), [Reject("2", "silent")]))
    assert dataset.finish(2, 0, {}).rejected == 1


def test_what_a_killed_try_rejected_and_the_next_did_not_stands_once(dataset):
    dataset.rejects.write("b0.parquet", b"of a try that was killed before its data was written")
    dataset.commit("b0", Outcome(rows("1", "2")))
    assert dataset.rejects.names() == []
    assert dataset.finish(2, 0, {}).rows_out == 2


def test_blocks_are_row_groups_in_a_stable_order(dataset):
    dataset.commit("a", Outcome(rows(*"12345")), rows_per_group=2)
    dataset.commit("b", Outcome(rows("6")))
    blocks = dataset.blocks()
    assert [(b.name, b.num_rows) for b in blocks] == [
        ("a-00000", 2),
        ("a-00001", 2),
        ("a-00002", 1),
        ("b", 1),
    ]
    assert read_block(blocks[2].path, blocks[2].row_group)["id"].to_pylist() == ["5"]


def test_a_dataset_of_rejects_only_still_opens_and_says_why_nothing_follows(dataset):
    dataset.finish(0, 0, {})
    assert pq.read_table(dataset.files()[0]).num_rows == 0
    with pytest.raises(DasError, match="none of 0 rows"):
        dataset.require_rows()


def test_rows_that_break_the_schema_are_refused(dataset):
    broken = rows("1").set_column(3, "split", pa.array(["dev"]))
    with pytest.raises(DasError, match="split"):
        dataset.commit("b0", Outcome(broken))
    assert dataset.committed() == set()


def test_the_schema_and_its_docs_travel_in_the_file(dataset):
    dataset.commit("b0", Outcome(rows("1")))
    stored = pq.read_schema(dataset.files()[0])
    assert stored.metadata[b"name"] == b"texts"
    assert stored.field("split").metadata[b"values"] == b"train,test"


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(3))
def test_a_block_that_is_made_again_is_only_what_it_was_last(dataset, first, second):
    tries = [
        Outcome(rows("1", "2")),
        Outcome(rows("1"), [Reject("2", "silent")]),
        Outcome(rows(), [Reject("1", "silent"), Reject("2", "silent")]),
    ]
    dataset.commit("b0", tries[first])
    dataset.commit("b0", tries[second])
    summary = dataset.finish(2, 1.0, {})
    assert summary.rejected == len(tries[second].rejects)


def test_rejected_rows_can_be_tried_again_beside_what_stays(dataset):
    gone, odd = Reject("2", "storage", "down"), Reject("3", "not-audio")
    dataset.commit("b0", Outcome(rows("1"), [gone, odd]))
    dataset.commit("b1", Outcome(rows(), [Reject("4", "storage"), Reject("5", "storage")]))
    dataset.commit("b2", Outcome(rows("6")))
    assert dataset.rejected(["storage", "denied"]) == {"b0": {"2"}, "b1": {"4", "5"}}
    dataset.commit("b0", dataset.without("b0", {"2"}) + Outcome(rows("2")))
    dataset.commit("b1", dataset.without("b1", {"4", "5"}) + Outcome(rows("4"), [Reject("5", "x")]))
    assert dataset.finish(6, 1.0, {}).reasons == {"not-audio": 1, "x": 1}
    assert sorted(dataset.read()["id"].to_pylist()) == ["1", "2", "4", "6"]
    assert dataset.without("b2", set()).rows.num_rows == 1
