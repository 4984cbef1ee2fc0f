"""Results as Parquet: the error matrix and the examples behind it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path

_KEY = [
    ("dataset", pa.string()),
    ("seed", pa.int64()),
    ("target", pa.string()),
    ("source", pa.string()),
    ("attack", pa.string()),
    ("gradient", pa.string()),
    ("eps", pa.float64()),
    ("alpha", pa.float64()),
    ("steps", pa.int32()),
    ("label", pa.string()),
    ("top", pa.int32()),
]
MATRIX = pa.schema(
    [
        *_KEY,
        ("n", pa.int64()),
        ("errors", pa.int64()),
        ("error_rate", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("wilson_low", pa.float64()),
        ("wilson_high", pa.float64()),
    ]
)
EXAMPLES = pa.schema([*_KEY, ("example", pa.int64()), ("correct", pa.bool_())])
KEY_COLUMNS = [name for name, _ in _KEY]
# The columns that distinguish the rows of one seed.
_CELL = ("target", "source", "attack", "gradient", "top")

Row = Mapping[str, Any]
Rows = npt.NDArray[np.int64]
CellKey = tuple[str, str, str, str, int]


def write_matrix(path: Path, rows: Sequence[Row]) -> None:
    """Write the error matrix, one row per target and set of adversarial examples; columns as in ``MATRIX``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=MATRIX), file)


def read_matrix(path: Path, *, seed: int | None = None) -> list[dict[str, Any]]:
    """Read the error matrix as a list of rows.

    Args:
        path: the Parquet file.
        seed: for the rows of a file without seeds, such as older versions wrote.

    Raises:
        GradshardError: the file is missing or is not an error matrix.
    """
    if not path.exists():
        raise GradshardError(f"no results at {path}: run `gradshard evaluate` (or `dvc repro evaluate`) first")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=MATRIX).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise GradshardError(f"{path} is not an error matrix ({error}): run `gradshard evaluate` again") from error
    return [row | {"seed": seed} if row["seed"] is None else row for row in rows]


def read_examples(path: Path, *, seed: int) -> dict[int, dict[CellKey, tuple[Rows, npt.NDArray[np.bool_]]]]:
    """Read which test examples each row of the matrix got right, by seed and the row's key.

    Args:
        path: the Parquet file.
        seed: for the rows of a file without seeds, such as older versions wrote.

    Returns:
        Per seed, target, source, attack, gradient and top, the numbers of the examples, int64 (n,), ascending, and
        which of them were classified right, bool (n,).

    Raises:
        GradshardError: the file is missing or damaged.
    """
    parts: dict[int, dict[CellKey, list[tuple[Rows, npt.NDArray[np.bool_]]]]] = {}
    for table in _row_groups(path, seed, columns=["seed", *_CELL, "example", "correct"]):
        numbers, correct = table["example"].to_numpy(), table["correct"].to_numpy()
        keys = [table[name].combine_chunks() for name in ("seed", *_CELL)]
        for start, end in _runs(keys):
            of, *cell = (column[start].as_py() for column in keys)
            parts.setdefault(of, {}).setdefault(tuple(cell), []).append((numbers[start:end], correct[start:end]))
    return {of: {cell: _in_order(found) for cell, found in cells.items()} for of, cells in parts.items()}


def merge_examples(path: Path, each: Mapping[int, Path]) -> None:
    """Merge the files of examples of several seeds into one, a row group at a time.

    Raises:
        GradshardError: a file is missing or damaged.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, EXAMPLES) as writer,
    ):
        for seed, examples in each.items():
            for table in _row_groups(examples, seed, columns=EXAMPLES.names):
                writer.write_table(table.select(EXAMPLES.names).cast(EXAMPLES))


def write_examples(path: Path, blocks: Iterable[tuple[Sequence[Row], Rows, npt.NDArray[np.bool_]]]) -> None:
    """Write which examples each row of the matrix got right, a row group per block, in bounded memory.

    Args:
        path: the Parquet file.
        blocks: the key columns of some of the matrix's rows, the numbers of some examples, int64 (n,), and which of
            them those rows got right, bool (len(keys), n).
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, EXAMPLES) as writer,
    ):
        for keys, examples, correct in blocks:
            repeated = np.repeat(np.arange(len(keys)), correct.shape[1])
            columns: dict[str, Any] = {
                name: pa.array([key[name] for key in keys], type=kind).take(pa.array(repeated)) for name, kind in _KEY
            }
            columns["example"] = np.tile(examples, len(keys))
            columns["correct"] = correct.ravel()
            writer.write_table(pa.table(columns, schema=EXAMPLES))


def _row_groups(path: Path, seed: int, *, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield some columns of a file of examples, a row group at a time; rows without a seed get ``seed``."""
    try:
        with pq.ParquetFile(path, read_dictionary=[name for name, kind in _KEY if kind == pa.string()]) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=list(columns))
                if "seed" not in table.column_names:
                    table = table.append_column("seed", pa.nulls(len(table), pa.int64()))
                place = table.column_names.index("seed")
                yield table.set_column(place, "seed", table["seed"].fill_null(seed))
    except (pa.ArrowException, OSError) as error:
        raise GradshardError(f"{path} cannot be read ({error}): run `gradshard evaluate` again") from error


def _runs(columns: Sequence[pa.Array]) -> list[tuple[int, int]]:
    """Return the start and end of each run of rows that are equal in all columns."""
    codes = [column.indices if isinstance(column, pa.DictionaryArray) else column for column in columns]
    changed = [np.diff(np.asarray(code)) != 0 for code in codes]
    starts = [0, *(1 + np.flatnonzero(np.logical_or.reduce(changed))).tolist(), len(columns[0])]
    return [run for run in pairwise(starts) if run[0] < run[1]]


def _in_order(parts: Sequence[tuple[Rows, npt.NDArray[np.bool_]]]) -> tuple[Rows, npt.NDArray[np.bool_]]:
    numbers, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(numbers)
    return numbers[order], correct[order]
