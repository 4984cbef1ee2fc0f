import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results

KEY = {"dataset": "d", "seed": 10, "target": "A", "source": "B", "attack": "fgsm", "gradient": "exact"} | {
    "eps": 0.3,
    "alpha": 0.0,
    "steps": 1,
    "label": "true",
    "top": 1,
}
ROW = KEY | {"n": 10, "errors": 3, "error_rate": 0.3, "ci_low": 0.1, "ci_high": 0.5}
ROW |= {"wilson_low": 0.11, "wilson_high": 0.6}


def test_the_matrix_comes_back_with_the_documented_columns(tmp_path):
    results.write_matrix(tmp_path / "m.parquet", [ROW, ROW | {"target": "C"}])
    assert results.read_matrix(tmp_path / "m.parquet") == [ROW, ROW | {"target": "C"}]
    columns = "dataset seed target source attack gradient eps alpha steps label top n errors error_rate"
    columns += " ci_low ci_high wilson_low wilson_high"
    assert pq.read_schema(tmp_path / "m.parquet").names == columns.split()


def test_rows_of_a_file_without_seeds_are_of_the_one_that_is_told(tmp_path):
    old = pa.Table.from_pylist([ROW], schema=results.MATRIX).drop_columns("seed")
    pq.write_table(old, tmp_path / "m.parquet")
    assert results.read_matrix(tmp_path / "m.parquet", seed=12) == [ROW | {"seed": 12}]
    results.write_matrix(tmp_path / "m.parquet", [ROW])
    assert results.read_matrix(tmp_path / "m.parquet", seed=12) == [ROW]


def test_examples_hold_every_cell_of_every_example(tmp_path):
    keys = [KEY, KEY | {"target": "C", "attack": "ifgsm", "steps": 10}]
    right = [np.random.default_rng(seed).random((2, n)) < 0.5 for seed, n in enumerate((5, 3))]
    numbers = (np.array([0, 2, 4, 6, 8]), np.array([11, 10, 9]))
    blocks = [(keys, some, each) for some, each in zip(numbers, right, strict=True)]
    results.write_examples(tmp_path / "e.parquet", blocks)
    rows = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert len(rows) == 16
    for row in rows:
        block = int(row["example"] > 8)
        (column,) = np.flatnonzero(numbers[block] == row["example"])
        line = 0 if row["target"] == "A" else 1
        assert {name: row[name] for name in results.KEY_COLUMNS} == keys[line]
        assert row["correct"] == right[block][line, column]
    (found,) = results.read_examples(tmp_path / "e.parquet", seed=9).values()
    examples, correct = found["A", "B", "fgsm", "exact", 1]
    assert list(found) == [("A", "B", "fgsm", "exact", 1), ("C", "B", "ifgsm", "exact", 1)]
    assert examples.tolist() == [0, 2, 4, 6, 8, 9, 10, 11], "in the order of the test set"
    assert correct.tolist() == [*right[0][0], *right[1][0][::-1]]


def test_examples_of_several_seeds_are_put_together(tmp_path):
    right = {seed: np.random.default_rng(seed).random((1, 20)) < 0.5 for seed in (10, 11)}
    for seed, correct in right.items():
        results.write_examples(tmp_path / f"{seed}.parquet", [([KEY | {"seed": seed}], np.arange(20), correct)])
    old = pq.read_table(tmp_path / "11.parquet").drop_columns("seed")
    pq.write_table(old, tmp_path / "11.parquet")
    merged = tmp_path / "e.parquet"
    results.merge_examples(merged, {seed: tmp_path / f"{seed}.parquet" for seed in right})
    assert pq.read_schema(merged) == results.EXAMPLES
    found = results.read_examples(merged, seed=0)
    assert {seed: cells["A", "B", "fgsm", "exact", 1][1].tolist() for seed, cells in found.items()} == {
        seed: correct[0].tolist() for seed, correct in right.items()
    }
    for path in (tmp_path / "none.parquet", merged):
        merged.write_bytes(b"PAR1 not really")
        with pytest.raises(GradshardError, match=r"cannot be read .*run `gradshard evaluate` again"):
            results.read_examples(path, seed=0)


def test_missing_or_foreign_results_are_named(tmp_path):
    with pytest.raises(GradshardError, match="run `gradshard evaluate`"):
        results.read_matrix(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(GradshardError, match="is not an error matrix"):
        results.read_matrix(tmp_path / "m.parquet")
