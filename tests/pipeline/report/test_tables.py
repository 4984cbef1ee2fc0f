import csv
import dataclasses
import io

import pytest

from gradshard.pipeline.report import export
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.table import NumberCell, Table
from gradshard.pipeline.report.tables import (
    defence_table,
    gradients_table,
    holdouts_table,
    random_training_table,
    transfer_table,
    white_box_table,
)
from tests.helpers.error_matrices import error_matrix, wrong_images

ONE = Seeds((10,))
KEY = ("target", "source", "attack", "errors")
ROWS = [
    ("A", "", "clean", 80),
    ("A_adv", "", "clean", 100),
    ("A_ens", "", "clean", 90),
    ("A", "A", "fgsm", 7140),
    ("A_adv", "A", "fgsm", 1190),
    ("A", "A_adv", "fgsm", 2470),
    ("A_adv", "A_adv", "fgsm", 360),
    ("A_ens", "A_ens", "fgsm", 1180),
    ("A_adv", "B", "fgsm", 1820),
    ("A_ens", "B", "fgsm", 500),
    ("A_adv", "A_adv", "rand_fgsm", 3410),
    ("A", "A", "rand_fgsm", 7530),
    ("A_adv", "B", "rand_fgsm", 1240),
    ("A_ens", "B", "rand_fgsm", 340),
    ("A_adv", "B", "ifgsm", 1980),
    ("A_ens", "B", "ifgsm", 970),
]


@pytest.fixture
def matrix():
    rows = [
        dict(zip(KEY, row, strict=True))
        | {"n": 10_000, "top": 1, "seed": 10, "gradient": "" if row[2] == "clean" else "exact"}
        for row in ROWS
    ]
    other = [row | {"gradient": "cross_entropy", "errors": 1} for row in rows if row["gradient"]]
    top_five = [row | {"top": 5, "errors": 2} for row in rows]
    return ErrorMatrix([*other, *top_five, *rows], "exact", ONE)


def texts(table):
    return {head: [cell.text for cell in cells] for head, cells in table.rows}


def test_table_1_has_sources_as_rows_and_marks_the_white_box(matrix):
    table = transfer_table(matrix, "fgsm", ["A", "A_adv"])
    assert table.columns == ["A", "A_adv"]
    assert texts(table) == {"A": ["71.4", "11.9"], "A_adv": ["24.7", "3.6"]}
    assert [[cell.marked for cell in cells] for _, cells in table.rows] == [[True, False], [False, True]]


def test_table_2_has_each_models_own_attacks(matrix):
    table = white_box_table(matrix, ["A", "A_adv", "B"])
    assert texts(table) == {"FGSM": ["71.4", "3.6", "–"], "RAND+FGSM": ["75.3", "34.1", "–"]}


def test_table_4_marks_those_tied_for_best_column_by_column(matrix):
    table = defence_table(matrix, {"6 epochs": ["A_adv", "A_ens"]}, "B")
    assert table.columns == ["Clean", "FGSM", "FGSM from B", "I-FGSM from B", "RAND+FGSM from B"]
    assert texts(table) == {
        "A_adv, 6 epochs": ["1.0", "3.6", "18.2", "19.8", "12.4"],
        "A_ens, 6 epochs": ["0.9", "11.8", "5.0", "9.7", "3.4"],
    }
    assert [[cell.bold for cell in cells] for _, cells in table.rows] == [
        [True, True, False, False, False],
        [True, False, True, True, True],
    ]


def test_where_groups_are_architectures_a_snapshot_keeps_its_name(matrix):
    rows = [dict(row, target="A_adv@6", source=row["source"]) for row in matrix.rows if row["target"] == "A_adv"]
    several = ErrorMatrix([*matrix.rows, *rows], "exact", ONE)
    heads = [head for head, _ in defence_table(several, {"A": ["A_adv", "A_adv@6"], "B": ["A_ens"]}, "B").rows]
    assert heads == ["A_adv, A", "A_adv@6, A", "A_ens, B"]


def test_a_single_model_is_not_the_best_of_anything(matrix):
    table = defence_table(matrix, {"12 epochs": ["A_adv"]}, "B")
    assert not any(cell.bold for _, cells in table.rows for cell in cells)


def test_each_top_k_has_a_matrix_of_its_own(matrix):
    assert texts(white_box_table(ErrorMatrix(matrix.rows, "exact", ONE, top=5), ["A"]))["FGSM"] == ["0.0"]
    assert texts(white_box_table(ErrorMatrix(matrix.rows, "exact", ONE), ["A"]))["FGSM"] == ["71.4"]


def test_a_rate_carries_its_interval(matrix):
    table = transfer_table(matrix, "fgsm", ["A_adv"])
    assert table.rows[0][1][0].note == "95 % interval 3.2 to 4.0 (Wilson 3.3 to 4.0), n = 10000"


def test_the_papers_figure_stands_beside_ours_where_the_paper_has_one(matrix):
    called = ErrorMatrix(matrix.rows, "exact", ONE, {"A": "A", "A_adv": "A_adv@6"})
    (_, [on_a, on_adv]), _ = transfer_table(called, "fgsm", ["A", "A_adv"]).rows
    assert (on_a.beside, on_adv.beside) == ("paper 71.4, +0.0", "paper 11.9, +0.0")
    twelve = ErrorMatrix(matrix.rows, "exact", ONE, {"A_adv": "A_adv@12"})
    assert defence_table(twelve, {"12 epochs": ["A_adv"]}, "B").rows[0][1][1].beside == "paper 3.8, -0.2"
    assert transfer_table(matrix, "fgsm", ["A"]).rows[0][1][0].beside == ""


def test_both_gradients_stand_side_by_side(matrix):
    matrices = {"cross_entropy": ErrorMatrix(matrix.rows, "cross_entropy", ONE), "exact": matrix}
    table = gradients_table(matrices, {"A": "", "A_adv": "exact"}, "B")
    assert table.columns[:2] == ["FGSM, cross_entropy", "FGSM, exact"]
    assert texts(table)["A"][:2] == ["0.0", "71.4"]
    assert texts(table)["A_adv, trained on exact signs"][4:6] == ["0.0", "18.2"]


def test_tables_leave_as_markdown_and_as_csv(matrix):
    table = defence_table(
        ErrorMatrix(matrix.rows, "exact", ONE, {"A_adv": "A_adv@6"}), {"6 epochs": ["A_adv", "A_ens"]}, "B"
    )
    lines = export.to_markdown(table).splitlines()
    assert lines[0] == "| model | Clean | FGSM | FGSM from B | I-FGSM from B | RAND+FGSM from B |"
    assert lines[2].startswith("| A_adv, 6 epochs | **1.0** (paper 1.0, +0.0) | **3.6** (paper 3.6, +0.0) |")
    rows = list(csv.DictReader(io.StringIO(export.to_csv(table))))
    assert len(rows) == 10
    first = rows[0]
    assert (first["row"], first["column"], first["value"]) == ("A_adv, 6 epochs", "Clean", "1.0")
    assert (first["n"], first["bold"], first["paper"], first["runs"]) == ("10000", "1", "1.0", "")
    assert float(first["low"]) < 1.0 < float(first["high"])
    assert rows[5]["paper"] == ""


@pytest.fixture
def three_seeds(matrix):
    """The same errors with three seeds, but for those of A_adv and of what it crafts; A and B are the same models."""

    def moved(row, seed):
        by = (seed - 11) * 100 if "A_adv" in (row["target"], row["source"]) else 0
        return row | {"seed": seed, "errors": row["errors"] + by}

    rows = [moved(row, seed) for seed in (10, 11, 12) for row in matrix.rows if row["gradient"] != "cross_entropy"]
    return ErrorMatrix(rows, "exact", Seeds((10, 11, 12), frozenset("AB")), {"A_adv": "A_adv@6"})


def test_over_several_seeds_a_cell_is_mean_and_deviation_and_each_seed(three_seeds):
    cell = transfer_table(three_seeds, "fgsm", ["A_adv"]).rows[0][1][0]
    assert (cell.text, cell.beside) == ("3.6 ± 1.0", "paper 3.6, +0.0")
    assert cell.note.endswith("; by seed: 10: 2.60, 11: 3.60, 12: 4.60; n = 10000")
    assert dict(cell.fields) == {
        "value": 3.6,
        "n": 10_000,
        "runs": 3,
        "bold": 0,
        "varying": "training",
        "deviation": 1.0,
        "paper": 3.6,
    }


def test_what_no_seed_changes_has_one_figure_and_an_interval(three_seeds):
    table = transfer_table(three_seeds, "fgsm", ["A", "A_adv"])
    assert texts(table) == {"A": ["71.4", "11.9 ± 1.0"], "A_adv": ["24.7 ± 1.0", "3.6 ± 1.0"]}
    assert table.rows[0][1][0].note.startswith("95 % interval 70.5 to 72.3")


def test_a_seed_that_was_not_measured_is_missed(three_seeds):
    fewer = ErrorMatrix([row for row in three_seeds.rows if row["seed"] != 12], "exact", three_seeds.seeds)
    cell = transfer_table(fewer, "fgsm", ["A_adv"]).rows[0][1][0]
    assert (cell.text, cell.beside, cell.fields["runs"]) == ("3.1 ± 0.7", "2 of 3 seeds", 2)


NEAR = [wrong_images([0.08, 0.16, 0.12, 0.11, 0.13], 1), wrong_images([0.17, 0.11, 0.14, 0.18, 0.10], 2)]
FAR = [NEAR[0], wrong_images([0.3, 0.35, 0.31, 0.33, 0.32], 3)]


@pytest.mark.parametrize(
    ("pair", "known", "bold"),
    [(NEAR, True, [True, True]), (FAR, True, [True, False]), (NEAR, False, [False, False])],
)
def test_over_seeds_a_model_is_tied_for_best_unless_it_is_shown_to_err_more(pair, known, bold):
    """Where images are not known, nobody is."""
    wrong = {("A_adv", "B", "fgsm"): pair[0], ("A_ens", "B", "fgsm"): pair[1]}
    table = defence_table(error_matrix(wrong, known=known), {"6 epochs": ["A_adv", "A_ens"]}, "B")
    assert [cells[0].bold for _, cells in table.rows] == bold


def test_models_that_no_seed_changes_are_tied_by_their_intervals_over_images(three_seeds):
    matrix = ErrorMatrix(three_seeds.rows, "exact", Seeds((10, 11, 12), frozenset(("A_adv", "A_ens", "B"))))
    table = defence_table(matrix, {"6 epochs": ["A_adv", "A_ens"]}, "B")
    assert [cells[2].bold for _, cells in table.rows] == [False, True]


def test_a_caption_tells_whether_there_are_intervals():
    matrix = error_matrix({("A_adv", "B", "fgsm"): NEAR[0]})
    table = matrix.seeds.captioned(transfer_table(matrix, "fgsm", ["B", "A_adv"]))
    assert table.caption == "Mean ± standard deviation over 5 seeds of training, the same static models."


@pytest.mark.parametrize(
    ("sources_vary", "said"), [(False, "the same static models"), (True, "static models varying too")]
)
def test_every_table_tells_over_what_it_is(three_seeds, sources_vary, said):
    seeds = Seeds((10, 11, 12), frozenset(), sources_vary=sources_vary)
    table = seeds.captioned(transfer_table(ErrorMatrix(three_seeds.rows, "exact", seeds), "fgsm", ["A"]))
    assert table.caption == (
        f"Mean ± standard deviation over 3 seeds of training, {said}. "
        "No interval stands where errors are known by their number alone."
    )
    assert export.to_markdown(table).endswith(f"|\n\n{table.caption}\n")
    varying = "training and static models" if sources_vary else "training"
    assert {row["varying"] for row in csv.DictReader(io.StringIO(export.to_csv(table)))} == {varying}


def test_with_one_seed_a_table_is_as_it_always_was(matrix):
    table = transfer_table(matrix, "fgsm", ["A"])
    assert matrix.seeds.captioned(table) == table
    assert "varying" not in export.to_csv(table)


def test_models_trained_on_random_steps_stand_beside_those_trained_on_fgsm(matrix):
    table = random_training_table(matrix, ["A_adv", "A_ens"], "B")
    assert table.columns[-1] == "RAND+FGSM"
    assert texts(table)["A_adv"] == ["1.0", "3.6", "18.2", "19.8", "12.4", "34.1"]


def test_every_attack_that_some_model_met_from_a_holdout_is_a_column(matrix):
    table = holdouts_table(matrix, ["A_adv", "A_ens"], ["B", "A"])
    assert table.columns == ["FGSM from B", "FGSM from A", "I-FGSM from B", "RAND+FGSM from B"]
    assert texts(table) == {"A_adv": ["18.2", "11.9", "19.8", "12.4"], "A_ens": ["5.0", "–", "9.7", "3.4"]}


def test_a_number_is_shown_to_three_figures_beside_the_papers():
    cell = NumberCell(0.12345, paper=0.12)
    assert (cell.text, cell.beside, dict(cell.fields)) == ("0.123", "paper 0.12", {"value": 0.12345, "paper": 0.12})
    assert NumberCell(0.5).beside == ""


@dataclasses.dataclass(frozen=True)
class Megabytes:
    """A cell of a user's own, with a column of its own."""

    value: float
    text: str = "3 MB"
    beside: str = ""
    note: str = ""
    bold: bool = False
    marked: bool = False
    heat: None = None

    @property
    def fields(self):
        return {"value": self.value, "unit": "MB"}


def test_a_cell_of_ones_own_has_columns_of_its_own_and_a_bar_stays_in_its_cell():
    table = Table("sizes", "Sizes", "a|b", ["of|it"], [("x|y", [Megabytes(3.0)])])
    rows = csv.DictReader(io.StringIO(export.to_csv(table)))
    row = next(rows)
    assert rows.fieldnames[-1] == "unit"
    assert (row["value"], row["unit"]) == ("3.0", "MB")
    assert export.to_markdown(table).splitlines()[0] == "| a\\|b | of\\|it |"
