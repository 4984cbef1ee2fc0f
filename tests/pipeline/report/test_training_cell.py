import csv
import io

import pytest

from gradshard.pipeline.evaluation.seed_variance import TrainingErrorRate
from gradshard.pipeline.report import export
from gradshard.pipeline.report.latex import to_latex
from gradshard.pipeline.report.table import Table, TableCell
from gradshard.pipeline.report.training_cell import TrainingCell, mean_and_deviation, seeds_note

FIVE = TrainingErrorRate((0.11, 0.12, 0.13, 0.12, 0.12), 10_000, (0.1097, 0.1311), (0.117, 0.123))
ONE = TrainingErrorRate((0.11,), 10_000, None, (0.104, 0.116))


def test_numbers_stand_with_their_deviation_and_how_many_seeds_there_were():
    assert mean_and_deviation(12.34, 0.44, 5) == "12.3 ± 0.4 (5 seeds)"
    assert mean_and_deviation(12.34, None, 1) == "12.3 (1 seed)"


def test_a_note_has_the_interval_and_every_seed_and_one_seed_claims_nothing():
    assert seeds_note((11.0, 13.1), [12, 12.5], 1000) == (
        "95 % interval for training 11.0 to 13.1; seeds: 12.00, 12.50; n = 1000"
    )
    assert seeds_note(None, [12], 1000) == "one seed: no claim about training; seeds: 12.00; n = 1000"


def test_a_cell_is_shown_beside_the_papers_figure_in_every_language():
    table = Table("seeds", "Over seeds", "model", ["FGSM"], [("A_adv", [TrainingCell(FIVE, paper=11.5)])])
    assert "| A_adv | 12.0 ± 0.7 (5 seeds) (paper 11.5, +0.5) |" in export.to_markdown(table)
    assert r"A\_adv & 12.0 $\pm$ 0.7 (5 seeds) (paper 11.5, +0.5) \\" in to_latex(table)
    (row,) = csv.DictReader(io.StringIO(export.to_csv(table)))
    assert {key: float(row[key]) for key in ("value", "low", "high", "n", "deviation", "runs", "paper")} == (
        pytest.approx(
            {"value": 12, "low": 10.97, "high": 13.11, "n": 10_000, "deviation": 0.7071, "runs": 5, "paper": 11.5}
        )
    )


def test_a_cell_of_one_seed_has_no_interval_and_an_unmeasured_one_nothing():
    one, none = TrainingCell(ONE), TrainingCell(None, paper=1)
    assert isinstance(one, TableCell)
    assert (one.text, one.heat) == ("11.0 (1 seed)", 0.11)
    assert one.fields == {"value": 11, "n": 10_000, "runs": 1, "bold": 0}
    assert "no claim" in one.note
    assert (none.text, none.beside, none.note, none.heat, none.fields) == ("–", "", "not measured", None, {})
