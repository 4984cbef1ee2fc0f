"""Tables of gradients and of adversaries who may ask, from what `analyze` and `blackbox` count."""

from gradshard.pipeline.report.measurements import directions_table, forest_table, substitute_table

COUNTS = {"n": 200, "right": 190, "own": 10, "other": 50, "other_alone": 40, "own_alone": 0}


def texts(table):
    return {head: [cell.text for cell in cells] for head, cells in table.rows}


def test_images_of_figure_2_are_a_share_of_all_and_their_curvature_is_one_of_them():
    near = {"near_own": 30, "falls_again": 4}
    measured = {
        "A_adv": {"directions": {"source": "B", **COUNTS, **near}},
        "B": {"directions": {"source": "B", **COUNTS}},
    }
    table = directions_table(measured | {"old": {}})
    assert texts(table) == {"A_adv, source B": ["5.0", "25.0", "20.0", "0.0", "75.0", "10.0"]}


def test_where_the_source_alone_fools_on_no_image_there_is_no_curvature():
    counts = {"source": "B", **COUNTS, "other_alone": 0, "near_own": 0, "falls_again": 0}
    assert texts(directions_table({"A": {"directions": counts}}))["A, source B"][-2:] == ["–", "–"]


def test_a_forests_errors_have_three_denominators_and_the_papers_figure_at_its_epsilon():
    shares = {"errors": 60, "n": 100, "errors_of_right": 57, "right": 95, "errors_of_fooling": 45, "fooling": 50}
    rows = [{"source": "", "gradient": "", "errors": 5, "n": 100}]
    rows += [{"source": "A", "gradient": "exact", "epsilon": epsilon, **shares} for epsilon in (0.2, 0.3)]
    table = forest_table({"trees": 100, "rows": rows}, compared=True)
    assert texts(table) == {
        "clean": ["5.0", "–", "–"],
        "FGSM from A, exact, ε = 0.2": ["60.0", "60.0", "90.0"],
        "FGSM from A, exact, ε = 0.3": ["60.0", "60.0", "90.0"],
    }
    assert [cells[0].beside for _, cells in table.rows] == ["paper 2.9, +2.1", "", "paper 99.0, -39.0"]


def test_results_of_an_older_gradshard_are_shown_too():
    rows = [{"source": "A", "gradient": "exact", "errors": 63, "n": 100}]
    assert texts(forest_table({"trees": 100, "rows": rows}, compared=True)) == {
        "FGSM from A, exact": ["63.0", "–", "–"]
    }
    rounds = [{"queries": 150, "errors": 4, "n": 200}, {"queries": 300, "errors": 8, "n": 200}]
    assert texts(substitute_table({"A_adv": {"substitute": rounds}})) == {"A_adv": ["2.0", "4.0"]}


def test_a_substitute_has_a_row_for_every_epsilon():
    sweep = [{"epsilon": 0.1, "errors": 1}, {"epsilon": 0.5, "errors": 30}]
    rounds = [{"queries": 150, "errors": 1, "n": 100, "sweep": sweep}]
    assert texts(substitute_table({"A": {"substitute": rounds}})) == {"A, ε = 0.1": ["1.0"], "A, ε = 0.5": ["30.0"]}
