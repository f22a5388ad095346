from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from train_tiny import END

from das_lib.errors import DasError, StorageError
from das_lib.ids import utterance_id, version_id
from das_lib.train.data import EqualShares, FeatureData, split_off
from das_lib.train.labels import IGNORED


def order(data: FeatureData, seed: int, epoch: int) -> list[str]:
    return [row["id"] for row in data.rows(seed, epoch)]


@pytest.mark.parametrize("buffer_bytes", [1, 20_000, 2**30])
def test_an_epoch_has_every_row_once_in_an_order_of_its_own(make_features, buffer_bytes):
    files = make_features(23, files=3)
    data = FeatureData(files, buffer_bytes=buffer_bytes)
    orders = [order(data, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(o) == [f"row-{i:04d}" for i in range(23)] for o in orders)
    assert len({tuple(o) for o in orders}) == 3
    again = FeatureData(files[::-1], buffer_bytes=buffer_bytes)
    assert order(again, 0, 0) == orders[0]


def test_rows_kept_back_are_the_same_whatever_the_files(make_features):
    train, validation = split_off(make_features(23, files=3), 0.1)
    other, again = split_off(make_features(23, files=1, name="other"), 0.1)
    kept = sorted(order(validation, 0, 0))
    assert len(kept) == validation.num_rows == 3
    assert kept == sorted(order(again, 0, 0)) != [f"row-{i:04d}" for i in range(3)]
    assert sorted([*order(train, 5, 0), *kept]) == [f"row-{i:04d}" for i in range(23)]
    assert train.num_rows == other.num_rows == 20
    assert split_off(make_features(4, name="few"), 0)[1] is None


@pytest.mark.parametrize("world", [2, 3])
def test_the_workers_shares_are_the_one_workers_batches(make_features, world):
    data = FeatureData(make_features(21, files=2))
    whole = list(data.batches(0, 0, batch_size=4))
    shares = [list(data.batches(0, 0, 4, rank, world)) for rank in range(world)]
    assert [b.num_rows for b in whole] == [4, 4, 4, 4, 4, 1]
    assert data.steps_per_epoch(4) == 6
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares if share[step].num_rows]
        encoded = torch.cat([part.encoded for part in parts])
        assert sorted(encoded.sum((1, 2)).tolist()) == sorted(batch.encoded.sum((1, 2)).tolist())


def test_a_batch_is_padded_at_the_end_and_hides_prompt_and_padding(make_features):
    data = FeatureData(make_features(5))
    rows = {tuple(row["labels"]): row for row in data.rows(0, 0)}
    (batch,) = data.batches(0, 0, batch_size=5)
    assert batch.encoded.dtype == torch.float32
    assert tuple(batch.encoded.shape) == (5, 50, 32)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        length = targets.index(END) + 1
        tokens = (*inputs[:length], END)
        assert tokens in rows
        assert targets[:3] == [IGNORED] * 3
        assert tuple(targets[3:length]) == tokens[4:]
        assert set(targets[length:]) <= {IGNORED}


def test_fewer_rows_than_a_batch_names_both_numbers(make_features):
    with pytest.raises(DasError, match=r"train\.batch_size=16 is more than the 5 utterances"):
        FeatureData(make_features(5)).steps_per_epoch(16)


def test_a_file_that_is_no_parquet_is_named(make_features):
    (path,) = make_features(5)
    Path(path).write_bytes(Path(path).read_bytes()[:100])
    with pytest.raises(StorageError, match=r"f-0\.parquet"):
        FeatureData([path])


def test_a_row_of_the_wrong_length_is_named(make_features):
    (path,) = make_features(3)
    table = pq.read_table(path)
    at = table.schema.get_field_index("encoded")
    pq.write_table(table.set_column(at, table.schema[at], [pa.array([b"\0" * 10] * 3)]), path)
    with pytest.raises(StorageError, match=r"row-000\d: encoded has 10 bytes.*need 3200"):
        list(FeatureData([path]).batches(0, 0, 3))


def test_equal_shares_draw_every_batch_equally_and_all_of_the_largest(make_features):
    parts = [FeatureData(make_features(n, name=f"d{n}")) for n in (9, 4)]

    shares = EqualShares(parts)
    order = [row["id"] for row in shares.rows(3, 1)]
    assert len(order) == shares.num_rows == 18
    large, small = order[::2], order[1::2]
    assert sorted(large) == sorted(row["id"] for row in parts[0].rows(0, 0))
    assert {small.count(i) for i in set(small)} == {2, 3}  # 9 draws of 4 rows
    assert small[:4] != small[4:8]  # the second lap has an order of its own
    assert order == [row["id"] for row in shares.rows(3, 1)]
    assert order != [row["id"] for row in shares.rows(3, 2)]
    assert len(list(shares.batches(3, 1, 4))) == shares.steps_per_epoch(4) == 5


def test_versions_of_an_utterance_are_judged_by_or_learnt_together(tmp_path, make_features):
    (path,) = make_features(12)
    table = pq.read_table(path)
    ids = [version_id(f"u{i // 3}", i % 3) for i in range(12)]
    pq.write_table(table.set_column(0, "id", pa.array(ids)), path)
    train, validation = split_off([path], 0.25, excluded=["u2"])
    learnt, judging = ({row["id"] for row in d.rows(0, 0)} for d in (train, validation))
    assert (len(learnt), len(judging)) == (6, 3)
    assert {utterance_id(i) for i in learnt}.isdisjoint({utterance_id(i) for i in judging} | {"u2"})
