"""The study: one adversary for every target, and what each took, from made-up results of three seeds."""

import copy
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.schema import Params, check_params
from gradshard.pipeline.report import export, figures
from gradshard.pipeline.report.defences.costs import Costs
from gradshard.pipeline.report.defences.study import Study, compared_table, study_table
from gradshard.pipeline.report.defences.study_points import cost_points, store_panels
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from tests.helpers.error_matrices import examples_of, matrix_rows, wrong_images

ROOT = Path(__file__).parents[4]
SEEDS, IMAGES = (10, 11, 12), 2000
UNSEEN = "any: unseen by all"
TRANSFERRED = {"live": [0.60, 0.61, 0.60], "one": [0.40, 0.41, 0.40], "two": [0.20, 0.21, 0.20]}
STORE = {"rows": 100, "bytes": 5_000, "forward": 100, "backward": 100}
COST = {
    "live": {"rows": 100, "forward": 1_700, "backward": 1_600, "stores": {}},
    "one": {"rows": 100, "forward": 800, "backward": 800, "stores": {"C": STORE}},
    "two": {"rows": 100, "forward": 800, "backward": 800, "stores": {"C": STORE, "D": STORE | {"forward": 1_100}}},
}


def params_of(**robust: dict) -> Params:
    """The default profile with targets trained on no store, on one and on two; B was seen by none."""
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    alike = {"architecture": "A", "epochs": 8}
    params["robust"] = {
        "live": alike,
        "one": alike | {"sources": ["C"], "self": False},
        "two": alike | {"sources": ["C", "D"], "self": False},
    } | {name: alike | its for name, its in robust.items()}
    params["seeds"], params["analysis"]["models"], params["blackbox"]["targets"] = list(SEEDS), [], []
    params["analysis"] |= {"plane": None, "baseline": "live"}
    params["evaluation"] |= {
        "targets": list(params["robust"]),
        "attacks": {},
        "illustrated": [],
        "diagnosed": [],
        "battery": {"sources": ["C", "B", "D"], "attacks": ["fgsm", "pgd"]},
    }
    return check_params(params, where="params.yaml")


def wrong_of(targets=TRANSFERRED) -> dict:
    """Errors of each target on clean images, of its own PGD, and at each seed's rate when examples are transferred."""
    wrong = {
        (target, UNSEEN, "worst_case"): wrong_images(rates, at) for at, (target, rates) in enumerate(targets.items())
    }
    wrong |= {(target, "", "clean"): wrong_images([0.01] * 3, 20) for target in targets}
    return wrong | {(target, target, "pgd"): np.ones((3, IMAGES), dtype=bool) for target in targets}


def study_of(wrong: dict, *, costs: dict | None = None, params: Params | None = None, known: bool = True) -> Study:
    params = params or params_of()
    examples = examples_of(wrong, SEEDS) if known else {}
    matrix = ErrorMatrix(matrix_rows(wrong, SEEDS), "exact", Seeds.of_params(params, SEEDS), {}, 1, examples)
    of_seeds = dict.fromkeys(SEEDS, COST if costs is None else costs)
    return Study(params, params.evaluation.battery, matrix, Costs(of_seeds))


def texts(table):
    return {head: [cell.text for cell in cells] for head, cells in table.rows}


def column(table, title):
    place = table.columns.index(title)
    return {head: cells[place] for head, cells in table.rows}


def test_every_row_is_of_the_same_sources_and_says_what_it_cost():
    table = study_table(study_of(wrong_of()))
    assert table.columns == [
        "Clean",
        "worst case from B",
        "own PGD",
        "passes of training",
        "passes of making stores",
        "bytes kept",
    ]
    assert texts(table) == {
        "live": ["1.0 ± 0.0", "60.3 ± 0.6", "100.0 ± 0.0", "33", "0", "0"],
        "one": ["1.0 ± 0.0", "40.3 ± 0.6", "100.0 ± 0.0", "16", "2", "50"],
        "two": ["1.0 ± 0.0", "20.3 ± 0.6", "100.0 ± 0.0", "16", "14", "100"],
    }
    bold = {head: cell.bold for head, cell in column(table, "worst case from B").items()}
    assert bold == {"live": False, "one": False, "two": True}


def test_the_worst_case_is_put_together_from_its_cells_whatever_was_written():
    wrong = wrong_of()
    cells = {key: np.zeros((3, IMAGES), dtype=bool) for target in TRANSFERRED for key in _cells(target)}
    half = np.arange(IMAGES) % 2 == 0
    expected = {}
    for target in TRANSFERRED:
        whole, clean = wrong.pop((target, UNSEEN, "worst_case")), wrong[target, "", "clean"]
        cells[target, "B", "fgsm"], cells[target, "B", "pgd"] = whole & half, whole & ~half
        cells[target, "C", "fgsm"] = ~cells[target, "C", "fgsm"]  # which is not asked for
        expected[target] = (whole | clean).mean()
    # As of a run whose targets had left other sources unseen.
    written = {(target, UNSEEN, "worst_case"): np.ones((3, IMAGES), dtype=bool) for target in TRANSFERRED}
    for study in (study_of(wrong | cells), study_of(wrong | cells | written)):
        assert {target: study.transferred(target).mean for target in TRANSFERRED} == pytest.approx(expected)
    assert study_table(study_of(wrong | cells, known=False)) is None, "of numbers alone it cannot be told"


def test_other_trainings_of_architectures_that_were_seen_have_a_column_of_their_own():
    params = params_of().model_dump(by_alias=True)
    params["static"]["D2"] = params["static"]["D"] | {"seed": 99}
    params["evaluation"]["battery"]["sources"].append("D2")
    params = check_params(params, where="params.yaml")
    cells = {key: np.zeros((3, IMAGES), dtype=bool) for target in TRANSFERRED for key in _cells(target)}
    rates = {"live": [0.7, 0.7, 0.7], "one": [0.5, 0.5, 0.5], "two": [0.3, 0.3, 0.3]}
    wrong = {(target, "", "clean"): wrong_images([0.01] * 3, 20) for target in TRANSFERRED}
    for at, target in enumerate(TRANSFERRED):
        cells[target, "D2", "pgd"] = wrong_images(rates[target], at)
        cells[target, "D2", "fgsm"] = np.zeros((3, IMAGES), dtype=bool)
        wrong[target, target, "pgd"] = np.ones((3, IMAGES), dtype=bool)
    study = study_of(wrong | cells, params=params)
    table = study_table(study)
    assert table.columns[:3] == ["Clean", "worst case from B", "worst case from D2"]
    for target, errors in rates.items():
        whole = cells[target, "D2", "pgd"] | wrong[target, "", "clean"]
        assert column(table, "worst case from D2")[target].text == f"{100 * whole.mean():.1f} ± 0.0"
        assert whole.mean() == pytest.approx(errors[0], abs=0.01)
    assert compared_table(study, "live").columns == ["Clean", "worst case from B", "worst case from D2", "own PGD"]


def _cells(target):
    return [(target, source, attack) for source in ("B", "C", "D") for attack in ("fgsm", "pgd")]


def test_without_a_source_unseen_by_all_there_is_no_study():
    params = params_of(last={"sources": ["C"]})
    unseen = params.evaluation.battery.model_copy(update={"sources": ["C", "D"]})
    params = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"battery": unseen})})
    assert (
        study_table(study_of({key: its for key, its in wrong_of().items() if key[1] != UNSEEN}, params=params)) is None
    )


def test_a_cost_that_is_not_known_is_a_dash_and_a_column_of_dashes_is_left_out():
    costs = COST | {"two": COST["two"] | {"stores": {"C": STORE, "D": None}}, "live": COST["live"] | {"forward": None}}
    assert {head: cells[3:] for head, cells in texts(study_table(study_of(wrong_of(), costs=costs))).items()} == {
        "live": ["–", "0", "0"],
        "one": ["16", "2", "50"],
        "two": ["16", "–", "–"],
    }
    assert study_table(study_of(wrong_of(), costs={})).columns == ["Clean", "worst case from B", "own PGD"]


def test_what_a_method_keeps_of_each_image_counts_as_bytes():
    costs = COST | {"live": COST["live"] | {"prior_bytes": 19_600}}
    assert texts(study_table(study_of(wrong_of(), costs=costs)))["live"][-1] == "196"


def test_the_others_are_compared_with_the_baseline_on_the_same_seeds_and_images():
    table = compared_table(study_of(wrong_of()), "live")
    assert texts(table) == {"one": ["+0.0", "-20.0", "+0.0"], "two": ["+0.0", "-40.0", "+0.0"]}
    assert table.caption.endswith("corrected for all 6 (Holm).")
    cell = column(table, "worst case from B")["two"]
    low, high = cell.measured.interval
    assert low < -0.4 < high < 0
    assert cell.measured.corrected_p < 0.05
    assert cell.beside == f"{100 * low:+.1f} to {100 * high:+.1f}, p < 1e-12"
    line = export.to_csv(table).splitlines()
    assert line[0].endswith(",p")
    assert float(line[5].rpartition(",")[2]) == pytest.approx(cell.measured.corrected_p, rel=1e-3)


def test_of_one_seed_nothing_is_said_of_ways_of_training():
    wrong = {key: its[:1] for key, its in wrong_of().items()}
    matrix = ErrorMatrix(matrix_rows(wrong, SEEDS[:1]), "exact", Seeds(SEEDS[:1]), {}, 1, examples_of(wrong, SEEDS[:1]))
    params = params_of()
    table = compared_table(Study(params, params.evaluation.battery, matrix, Costs()), "live")
    cell = column(table, "worst case from B")["two"]
    assert (cell.text, cell.beside, cell.note) == ("-40.0", "", "one seed: no claim about training")
    assert table.caption == ""


def test_errors_against_cost_have_a_point_a_seed_and_both_costs():
    points = cost_points(study_of(wrong_of()))
    assert {name: {(point.training, point.total) for point in its} for name, its in points.items()} == {
        "live": {(33, 33)},
        "one": {(16, 18)},
        "two": {(16, 30)},
    }
    assert [point.error for point in points["two"]] == [0.20, 0.21, 0.20]
    drawn = figures.errors_against_cost(points, "title")
    assert drawn == figures.errors_against_cost(points, "title"), "the same bytes"
    assert all(f">{name}<" in drawn for name in TRANSFERRED)


def test_panels_are_of_what_defences_differ_in_and_nothing_else():
    signs = {"attack": "pgd", "eps": 0.3, "steps": 10, "model": "C", "label": "predicted"}
    stores = {"P": signs, "P4": signs | {"copies": 4}}
    params = params_of(strong={"sources": ["C"], "self": False}, other={"sources": ["C"]})
    content = params.model_dump(by_alias=True)
    content["signs"] |= stores
    content["robust"]["strong"]["sources"], content["robust"]["four"] = (
        ["P"],
        content["robust"]["one"] | {"sources": ["P4"]},
    )
    content["evaluation"]["targets"].append("four")
    params = check_params(content, where="params.yaml")
    rates = TRANSFERRED | {"strong": [0.3] * 3, "four": [0.25] * 3, "other": [0.5] * 3}
    panels = store_panels(study_of(wrong_of(rates), params=params))
    assert {factor: (list(panel.values), list(panel.lines)) for factor, panel in panels.items()} == {
        "sources": (["1", "2"], ["one, two"]),
        "copies": (["1", "4"], ["strong, four"]),
        "attack stored": (["FGSM", "PGD, 10 steps"], ["one, strong"]),
    }
    assert panels["sources"].lines["one, two"]["2"] == [0.20, 0.21, 0.20]
    drawn = figures.errors_against_stores(panels, "title")
    assert drawn == figures.errors_against_stores(panels, "title"), "the same bytes"
    assert ">PGD, 10 steps<" in drawn


def test_no_line_of_copies_goes_through_stores_of_other_models():
    signs = {"attack": "pgd", "eps": 0.3, "steps": 10, "label": "predicted"}
    content = params_of().model_dump(by_alias=True)
    content["signs"] |= {"P": signs | {"model": "C"}, "Q": signs | {"model": "D", "copies": 4}}
    for name, store in (("few", "P"), ("many", "Q")):
        content["robust"][name] = content["robust"]["one"] | {"sources": [store]}
        content["evaluation"]["targets"].append(name)
    params = check_params(content, where="params.yaml")
    panels = store_panels(study_of(wrong_of(TRANSFERRED | {"few": [0.1] * 3, "many": [0.2] * 3}), params=params))
    assert "copies" not in panels


@pytest.mark.parametrize("other", [{"label": "true"}, {"gradient": "cross_entropy"}, {"attack": "ifgsm", "eps": 0.1}])
def test_no_line_goes_through_defences_whose_stores_differ_in_something_else_too(other):
    content = params_of().model_dump(by_alias=True)
    alike = {"attack": "ifgsm", "eps": 0.3, "steps": 10, "gradient": "exact", "label": "predicted"}
    content["signs"] |= {"C": alike | {"model": "C"}, "D": alike | {"model": "D"}, "T": alike | {"model": "D"} | other}
    content["robust"]["ours"] = content["robust"]["two"] | {"sources": ["C", "T"]}
    content["evaluation"]["targets"].append("ours")
    params = check_params(content, where="params.yaml")
    panels = store_panels(study_of(wrong_of(TRANSFERRED | {"ours": [0.1] * 3}), params=params))
    assert list(panels["sources"].lines) == ["one, two"]
