import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import results
from storage.errors import GradshardError

KEY = {"dataset": "d", "target": "A", "source": "B", "attack": "fgsm", "gradient": "exact"} | {
    "eps": 0.3,
    "alpha": 0.0,
    "steps": 1,
}
ROW = KEY | {"n": 10, "errors": 3, "error_rate": 0.3, "ci_low": 0.1, "ci_high": 0.5}
ROW |= {"wilson_low": 0.11, "wilson_high": 0.6}


def test_the_matrix_comes_back_with_the_documented_columns(tmp_path):
    results.write_matrix(tmp_path / "m.parquet", [ROW, ROW | {"target": "C"}])
    assert results.read_matrix(tmp_path / "m.parquet") == [ROW, ROW | {"target": "C"}]
    columns = "dataset target source attack gradient eps alpha steps n errors error_rate"
    columns += " ci_low ci_high wilson_low wilson_high"
    assert pq.read_schema(tmp_path / "m.parquet").names == columns.split()


def test_examples_hold_every_cell_of_every_example(tmp_path):
    keys = [KEY, KEY | {"target": "C", "attack": "ifgsm", "steps": 10}]
    blocks = [np.random.default_rng(seed).random((2, n)) < 0.5 for seed, n in enumerate((5, 3))]
    results.write_examples(tmp_path / "e.parquet", keys, zip((0, 5), blocks, strict=True))
    rows = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert len(rows) == 16
    for row in rows:
        block, column = divmod(row["example"], 5)
        line = 0 if row["target"] == "A" else 1
        assert {name: row[name] for name in results.KEY_COLUMNS} == keys[line]
        assert row["correct"] == blocks[block][line, column]


def test_missing_or_foreign_results_are_named(tmp_path):
    with pytest.raises(GradshardError, match="run `gradshard evaluate`"):
        results.read_matrix(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(GradshardError, match="is not an error matrix"):
        results.read_matrix(tmp_path / "m.parquet")
