"""Results as Parquet: the error matrix and the examples behind it."""

from collections.abc import Iterable, Mapping, Sequence
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

Row = Mapping[str, Any]
Rows = npt.NDArray[np.int64]


def write_matrix(path: Path, rows: Sequence[Row]) -> None:
    """Write the error matrix, one row per target and set of adversarial examples; columns as in ``MATRIX``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=MATRIX), file)


def read_matrix(path: Path, *, seed: int | None = None) -> list[dict[str, Any]]:
    """Read the error matrix as a list of rows.

    Args:
        path: the Parquet file.
        seed: that of the rows of a file without seeds, such as older versions wrote.

    Raises:
        GradshardError: there is none, or it is no such file.
    """
    if not path.exists():
        raise GradshardError(f"no results at {path}: run `gradshard evaluate` (or `dvc repro evaluate`) first")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=MATRIX).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise GradshardError(f"{path} is not an error matrix ({error}): run `gradshard evaluate` again") from error
    return [row | {"seed": seed} if row["seed"] is None else row for row in rows]


def read_examples(
    path: Path, *, attack: str, target: str, source: str, gradient: str, top: int = 1
) -> npt.NDArray[np.bool_]:
    """Read which test examples one row of a seed's matrix got right, bool (n,), in the order of the test set.

    Raises:
        GradshardError: the file is missing, damaged, or has no such row.
    """
    row = {"attack": attack, "target": target, "source": source, "gradient": gradient, "top": top}
    try:
        table = pq.read_table(
            path, columns=["example", "correct"], filters=[(name, "==", value) for name, value in row.items()]
        )
    except (pa.ArrowException, OSError) as error:
        raise GradshardError(f"{path} cannot be read ({error}): run `gradshard evaluate` again") from error
    if not len(table):
        raise GradshardError(f"{path} has no row {row}: run `gradshard evaluate` again")
    correct: npt.NDArray[np.bool_] = table["correct"].to_numpy()[np.argsort(table["example"].to_numpy())]
    return correct


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
