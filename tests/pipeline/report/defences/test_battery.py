"""The battery's table over seeds."""

import copy
from pathlib import Path

from ruamel.yaml import YAML

from gradshard.pipeline.config.schema import check_params
from gradshard.pipeline.report.defences.battery import battery_table
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seeds import Seeds

ROOT = Path(__file__).parents[4]
CELLS = {10: {("B", "fgsm"): 20, ("C", "fgsm"): 10}, 11: {("B", "fgsm"): 30, ("C", "fgsm"): 20}}


def table_of(cells: dict, target: str = "A_adv-ens"):
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    params["seeds"] = list(cells)
    params["evaluation"] |= {"battery": {"sources": ["B", "C"], "attacks": ["fgsm"]}, "targets": [target]}
    checked = check_params(params, where="params.yaml")
    rows = [
        {"target": target, "source": source, "attack": attack, "gradient": "exact", "top": 1, "seed": seed}
        | {"errors": errors, "n": 100}
        for seed, of_seed in cells.items()
        for (source, attack), errors in of_seed.items()
    ]
    matrix = ErrorMatrix(rows, "exact", Seeds.of_params(checked, list(cells)))
    battery = checked.evaluation.battery
    assert battery is not None
    return {head: [cell.text for cell in cells] for head, cells in battery_table(matrix, checked, battery).rows}


def test_mean_and_worst_cell_are_taken_seed_by_seed():
    assert table_of(CELLS) == {
        "A_adv-ens: all (B, C)": ["20.0 ± 7.1", "25.0 ± 7.1", "–", "–", "–"],
        "A_adv-ens: seen (C)": ["15.0 ± 7.1", "15.0 ± 7.1", "–", "–", "–"],
        "A_adv-ens: unseen (B)": ["25.0 ± 7.1", "25.0 ± 7.1", "–", "–", "–"],
    }


def test_a_mean_counts_no_seed_that_lacks_a_cell():
    cells = {10: CELLS[10], 11: {("B", "fgsm"): 30}}
    assert table_of(cells)["A_adv-ens: all (B, C)"][0] == "15.0"


def test_a_worst_case_that_no_seed_changes_is_one_rate():
    cells = {("B", "fgsm"): 20, ("C", "fgsm"): 10, ("any: all", "worst_case"): 25}
    found = table_of(dict.fromkeys((10, 11), cells), target="A")
    assert found["A: all (B, C)"] == ["15.0", "20.0", "25.0", "–", "–"]
