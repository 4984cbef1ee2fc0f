"""Made-up results of several seeds: which images were wrong, and the matrices and files that follow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradshard.pipeline.report.error_matrix import ErrorMatrix, Examples
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.storage.formats import results

# By target, source and attack: bool (seeds, images).
Wrong = Mapping[tuple[str, str, str], npt.NDArray[np.bool_]]


def wrong_images(rates: Sequence[float], noise: int, images: int = 2000) -> npt.NDArray[np.bool_]:
    """Draw errors at each seed's rate; some images are harder than others, the same for all defences."""
    difficulty = np.random.default_rng(0).random(images)
    rows = difficulty + np.random.default_rng(noise).normal(0, 0.05, (len(rates), images))
    return np.stack([row >= np.quantile(row, 1 - rate) for row, rate in zip(rows, rates, strict=True)])


def matrix_rows(wrong: Wrong, seeds: Sequence[int]) -> list[dict]:
    """Return the rows of an error matrix, of gradient ``exact`` and the first class."""
    return [
        {
            **{"dataset": "made-up", "eps": 0.3, "alpha": 0.05, "steps": 1, "label": "true", "top": 1},
            **{"seed": seed, "target": target, "source": source, "attack": attack},
            **{"gradient": "" if attack == "clean" else "exact", "n": len(row), "errors": int(row.sum())},
            **{"error_rate": float(row.mean()), "ci_low": 0.0, "ci_high": 1.0, "wilson_low": 0.0, "wilson_high": 1.0},
        }
        for (target, source, attack), rows in wrong.items()
        for seed, row in zip(seeds, rows, strict=True)
    ]


def examples_of(wrong: Wrong, seeds: Sequence[int]) -> dict[int, Examples]:
    """Return the images that were right, by seed."""
    return {
        seed: {
            (target, source, attack, "" if attack == "clean" else "exact", 1): (np.arange(rows.shape[1]), ~rows[at])
            for (target, source, attack), rows in wrong.items()
        }
        for at, seed in enumerate(seeds)
    }


def error_matrix(
    wrong: Wrong, seeds: Sequence[int] = (10, 11, 12, 13, 14), *, known: bool = True, steady: str = "AB"
) -> ErrorMatrix:
    """Return an error matrix over seeds; without ``known``, only the number of errors is known."""
    examples = examples_of(wrong, seeds) if known else {}
    return ErrorMatrix(
        matrix_rows(wrong, seeds), "exact", Seeds(tuple(seeds), frozenset(steady)), {}, 1, examples=examples
    )


def write_results(folder: Path, wrong: Wrong, seeds: Sequence[int]) -> None:
    """Write results as ``evaluate`` does, one folder for each seed."""
    for at, seed in enumerate(seeds):
        (folder / str(seed)).mkdir()
        one = {key: rows[at : at + 1] for key, rows in wrong.items()}
        rows = matrix_rows(one, [seed])
        results.write_matrix(folder / str(seed) / "matrix.parquet", rows)
        blocks = [([row], np.arange(row["n"]), ~one[row["target"], row["source"], row["attack"]]) for row in rows]
        results.write_examples(folder / str(seed) / "examples.parquet", blocks)
