"""The battery, from the parameters to the report's table."""

import numpy as np
import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.stages.table import named_table
from gradshard.storage.formats import results
from tests.helpers.projects import Project

TARGET, ATTACKS = "A_adv-ens", ["fgsm", "mifgsm"]
# In the tiny project all models are of one architecture, and A_adv-ens is trained on stores of A, C and D.
HALVES = {"all": ["C", "D", "B"], "seen": ["C", "D"], "same architecture": ["B"]}


@pytest.fixture
def measured(copied_project: Project, gradshard) -> Project:
    """A project that was evaluated with a battery."""
    battery = {"sources": HALVES["all"], "attacks": ATTACKS}
    copied_project.edit(lambda params: params["evaluation"].update(battery=battery))
    code, said = gradshard(copied_project, "evaluate")
    assert code == 0, said
    return copied_project


def test_each_half_has_its_mean_its_worst_cell_and_its_worst_case_by_example(measured):
    matrix, examples = (measured.path / f"evaluation/10/{name}.parquet" for name in ("matrix", "examples"))

    correct = results.read_examples(examples, seed=10)[10]

    def wrong(source: str, attack: str, gradient: str = "exact") -> np.ndarray:
        return ~correct[TARGET, source, attack, gradient, 1][1]

    table = named_table(matrix, read_params(measured.path / "params.yaml"), "exact", "battery")
    assert table.columns == ["mean", "worst cell", "worst case", "Clean", "own PGD"]
    shown = {head: [float(cell.text) for cell in cells] for head, cells in table.rows if head.startswith(f"{TARGET}:")}
    assert list(shown) == [f"{TARGET}: {half} ({', '.join(sources)})" for half, sources in HALVES.items()]
    clean, own = wrong("", "clean", ""), wrong(TARGET, "pgd")
    for (half, sources), found in zip(HALVES.items(), shown.values(), strict=True):
        cells = [wrong(source, attack) for source in sources for attack in ATTACKS]
        by_example = np.logical_or.reduce([clean, *cells])
        counts = [round(np.mean([cell.sum() for cell in cells])), max(cell.sum() for cell in cells), by_example.sum()]
        assert found == [round(100 * count / len(clean), 1) for count in [*counts, clean.sum(), own.sum()]]
        assert np.array_equal(wrong(f"any: {half}", "worst_case"), by_example)


def test_without_a_battery_there_is_no_table_of_one(finished_project, gradshard):
    code, said = gradshard(finished_project, "table", "evaluation/10/matrix.parquet", "--name", "battery")
    assert code == 2
    assert "has no table battery" in said
