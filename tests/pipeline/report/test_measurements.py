"""Tables of gradients and of adversaries who may ask, from what `analyze` and `blackbox` count."""

from gradshard.pipeline.report.measurements import (
    directions_table,
    estimation_table,
    forest_table,
    gradient_norms_table,
    substitute_table,
    wrong_signs_table,
)
from gradshard.pipeline.report.over_seeds.seeds import Seeds

ONE = Seeds((10,))
# A is the same static model for every seed.
TWO = Seeds((10, 11), steady=frozenset({"A"}))
COUNTS = {"n": 200, "right": 190, "own": 10, "other": 50, "other_alone": 40, "own_alone": 0}


def texts(table):
    return {head: [cell.text for cell in cells] for head, cells in table.rows}


def test_images_of_figure_2_are_a_share_of_all_and_their_curvature_is_one_of_them():
    near = {"near_own": 30, "falls_again": 4}
    measured = {
        "A_adv": {"directions": {"source": "B", **COUNTS, **near}},
        "B": {"directions": {"source": "B", **COUNTS}},
    }
    table = directions_table({10: measured | {"old": {}}}, ONE)
    assert texts(table) == {"A_adv, source B": ["5.0", "25.0", "20.0", "0.0", "75.0", "10.0"]}


def test_where_the_source_alone_fools_on_no_image_there_is_no_curvature():
    counts = {"source": "B", **COUNTS, "other_alone": 0, "near_own": 0, "falls_again": 0}
    assert texts(directions_table({10: {"A": {"directions": counts}}}, ONE))["A, source B"][-2:] == ["–", "–"]


def test_a_forests_errors_have_three_denominators_and_the_papers_figure_at_its_epsilon():
    shares = {"errors": 60, "n": 100, "errors_of_right": 57, "right": 95, "errors_of_fooling": 45, "fooling": 50}
    rows = [{"source": "", "gradient": "", "errors": 5, "n": 100}]
    rows += [{"source": "A", "gradient": "exact", "epsilon": epsilon, **shares} for epsilon in (0.2, 0.3)]
    table = forest_table({10: {"trees": 100, "rows": rows}}, ONE, compared=True)
    assert texts(table) == {
        "clean": ["5.0", "–", "–"],
        "FGSM from A, exact, ε = 0.2": ["60.0", "60.0", "90.0"],
        "FGSM from A, exact, ε = 0.3": ["60.0", "60.0", "90.0"],
    }
    assert [cells[0].beside for _, cells in table.rows] == ["paper 2.9, +2.1", "", "paper 99.0, -39.0"]


def test_results_of_an_older_gradshard_are_shown_too():
    rows = [{"source": "A", "gradient": "exact", "errors": 63, "n": 100}]
    assert texts(forest_table({10: {"trees": 100, "rows": rows}}, ONE, compared=True)) == {
        "FGSM from A, exact": ["63.0", "–", "–"]
    }
    rounds = [{"queries": 150, "errors": 4, "n": 200}, {"queries": 300, "errors": 8, "n": 200}]
    assert texts(substitute_table({10: {"A_adv": {"substitute": rounds}}}, ONE)) == {"A_adv": ["2.0", "4.0"]}


def test_a_substitute_has_a_row_for_every_epsilon():
    sweep = [{"epsilon": 0.1, "errors": 1}, {"epsilon": 0.5, "errors": 30}]
    rounds = [{"queries": 150, "errors": 1, "n": 100, "sweep": sweep}]
    assert texts(substitute_table({10: {"A": {"substitute": rounds}}}, ONE)) == {
        "A, ε = 0.1": ["1.0"],
        "A, ε = 0.5": ["30.0"],
    }


def first_cell(table):
    cell = table.rows[0][1][0]
    return cell.text, cell.beside


def moments(mean, deviation=1.0, examples=100):
    return {"mean": mean, "deviation": deviation, "examples": examples}


def gradients(norm):
    """Return what `analyze` measures of a model, by its mean norm."""
    wrong = {name: moments(norm / 10, 0.01, 50) for name in ("wrong_signs", "wrong_signs_cross_entropy")}
    norms = {name: moments(norm, 2 * norm) for name in ("norm", "norm_cross_entropy")}
    return norms | wrong | {"zero_rows_cross_entropy": int(10 * norm)}


def test_norms_and_signs_are_means_over_the_seeds_and_of_what_no_seed_changes_one_figure():
    measured = {10: {"A": gradients(0.5), "A_adv": gradients(0.1)}, 11: {"A_adv": gradients(0.3)}}
    norms = gradient_norms_table(measured, TWO, {"A": "A", "A_adv": "A_adv"})
    assert texts(norms) == {
        "A": ["0.5", "1", "0.5", "1"],
        "A_adv": ["0.2 ± 0.14", "0.4 ± 0.28", "0.2 ± 0.14", "0.4 ± 0.28"],
    }
    (_, (cell, *_)) = norms.rows[1]
    assert cell.note == "by seed: 10: 0.1, 11: 0.3"
    assert cell.beside == "paper 0.11"
    signs = wrong_signs_table(measured, TWO)
    assert texts(signs) == {"A": ["5", "5", "10.0"], "A_adv": ["2 ± 1.4", "2 ± 1.4", "4.0 ± 2.8"]}
    assert TWO.captioned(norms).caption == "Mean ± standard deviation over 2 seeds of training, the same static models."


def test_figures_of_fewer_seeds_than_there_are_say_so():
    """Results of an older gradshard have gradients and queries of the first seed alone."""
    table = gradient_norms_table({10: {"A_adv": gradients(0.1)}}, TWO, {})
    assert first_cell(table) == ("0.1", "1 of 2 seeds")
    counts = {"source": "B", **COUNTS, "near_own": 30, "falls_again": 4}
    table = directions_table({10: {"A_adv": {"directions": counts}}}, TWO)
    assert first_cell(table) == ("5.0", "1 of 2 seeds")


def test_figure_2_over_seeds_leaves_out_those_in_which_no_image_is_like_it():
    fooled = {"source": "B", **COUNTS, "near_own": 30, "falls_again": 4}
    none = fooled | {"other_alone": 0, "near_own": 0, "falls_again": 0}
    table = directions_table({10: {"A_adv": {"directions": fooled}}, 11: {"A_adv": {"directions": none}}}, TWO)
    assert texts(table) == {"A_adv, source B": ["5.0 ± 0.0", "25.0 ± 0.0", "10.0 ± 14.1", "0.0 ± 0.0", "75.0", "10.0"]}
    assert [cell.beside for cell in table.rows[0][1]] == ["", "", "", "", "1 of 2 seeds", "1 of 2 seeds"]


def asked(errors):
    """Return what `blackbox` finds about a target."""
    rounds = [{"queries": 150, "errors": errors, "n": 100, "sweep": [{"epsilon": 0.3, "errors": errors}]}]
    estimated = [{"queries_per_example": 98, "errors": errors, "n": 50}]
    return {
        "substitute": rounds,
        "estimation": {"estimated": estimated, "true_gradient": {"errors": 2 * errors, "n": 50}},
    }


def test_queries_and_forests_are_means_over_the_seeds():
    targets = {10: {"A": asked(20), "A_adv": asked(5)}, 11: {"A_adv": asked(15)}}
    assert texts(substitute_table(targets, TWO)) == {"A, ε = 0.3": ["20.0"], "A_adv, ε = 0.3": ["10.0 ± 7.1"]}
    assert texts(estimation_table(targets, TWO)) == {"A": ["40.0", "80.0"], "A_adv": ["20.0 ± 14.1", "40.0 ± 28.3"]}
    clean = {"source": "", "gradient": "", "errors": 5, "n": 100}

    def rows(*sources, errors):
        return [clean, *({"source": name, "gradient": "exact", "errors": errors, "n": 100} for name in sources)]

    forests = {
        10: {"trees": 100, "rows": rows("A", "A_adv", errors=60)},
        11: {"trees": 100, "rows": rows("A_adv", errors=80)},
    }
    assert {head: cells[0] for head, cells in texts(forest_table(forests, TWO, compared=False)).items()} == {
        "clean": "5.0",
        "FGSM from A, exact": "60.0",
        "FGSM from A_adv, exact": "70.0 ± 14.1",
    }


def test_where_nobody_is_asked_no_table_has_a_row():
    tables = [substitute_table({10: {}}, ONE), estimation_table({10: {}}, ONE), forest_table({}, ONE, compared=True)]
    assert [table.rows for table in tables] == [[], [], []]
