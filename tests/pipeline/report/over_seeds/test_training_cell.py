import csv
import io

import pytest

from gradshard.pipeline.evaluation.seed_variance import training_error_rate
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report import export
from gradshard.pipeline.report.latex import to_latex
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import Table, TableCell
from tests.helpers.error_matrices import error_matrix, wrong_images

RATES = [0.11, 0.12, 0.13, 0.12, 0.12]
KEY = ("A_adv", "B", "fgsm")


def cell(seeds=5, *, known=True, paper=None):
    matrix = error_matrix({KEY: wrong_images(RATES[:seeds], 1)}, range(10, 10 + seeds), known=known)
    return TrainingCell(matrix.errors(*KEY), expected=5, paper=paper)


def test_a_cell_is_shown_beside_the_papers_figure_in_every_language():
    table = Table("seeds", "Over seeds", "model", ["FGSM"], [("A_adv", [cell(paper=11.5)])])
    assert "| A_adv | 12.0 ± 0.7 (paper 11.5, +0.5) |" in export.to_markdown(table)
    assert r"A\_adv & 12.0 $\pm$ 0.7 (paper 11.5, +0.5) \\" in to_latex(table)
    low, high = training_error_rate(wrong_images(RATES, 1)).interval
    (row,) = csv.DictReader(io.StringIO(export.to_csv(table)))
    assert {key: float(row[key]) for key in ("value", "low", "high", "n", "deviation", "runs", "paper")} == (
        pytest.approx(
            {"value": 12, "low": 100 * low, "high": 100 * high, "n": 2000, "deviation": 0.7071}
            | {"runs": 5, "paper": 11.5},
            abs=1e-4,
        )
    )


def test_its_note_has_the_interval_for_training_and_every_seed():
    low, high = (100 * end for end in training_error_rate(wrong_images(RATES, 1)).interval)
    assert cell().note == (
        f"95 % interval for training {low:.1f} to {high:.1f}; "
        "by seed: 10: 11.00, 11: 12.00, 12: 13.00, 13: 12.00, 14: 12.00; n = 2000"
    )


def test_where_it_is_not_known_which_images_were_wrong_there_is_no_interval_and_the_note_says_so():
    known_by_number = cell(known=False)
    assert known_by_number.text == cell().text == "12.0 ± 0.7"
    assert (known_by_number.interval, known_by_number.lacks_images, cell().lacks_images) == (None, True, False)
    assert known_by_number.note.startswith("no interval, for it is not known which images were wrong; by seed: 10: ")
    assert not {"low", "high"} & set(known_by_number.fields)


def test_a_cell_of_one_seed_claims_nothing_and_an_unmeasured_one_has_nothing():
    one, none = cell(1), TrainingCell(SeedErrors({}), paper=1)
    assert isinstance(one, TableCell)
    assert (one.text, one.beside, one.heat, one.lacks_images) == ("11.0", "1 of 5 seeds", 0.11, False)
    assert one.fields == {"value": 11, "n": 2000, "runs": 1, "bold": 0, "varying": "training"}
    assert one.note.startswith("one seed: no claim about training; ")
    assert (none.text, none.beside, none.note, none.heat, none.fields) == ("–", "", "not measured", None, {})


def test_missing_seeds_stand_beside_the_papers_figure():
    assert TrainingCell(SeedErrors({10: ErrorRate(1, 100)}), expected=2, paper=2.0).beside == (
        "paper 2.0, -1.0; 1 of 2 seeds"
    )
