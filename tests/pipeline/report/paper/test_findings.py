"""The paper's sentences about MNIST, held against made-up error rates of several seeds."""

import dataclasses
from pathlib import Path

import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.paper.findings import findings_table, roles

SEEDS = (10, 11, 12, 13, 14)
N = 10_000
LESS_FROM_B = "the ensemble errs less on FGSM from the holdout (5.3)"
OWN = "an adversarially trained model errs more on FGSM from another model than on its own (3.2)"


@pytest.fixture(scope="module")
def played():
    params = read_params(Path(__file__).parents[4] / "pipeline/config/profiles/mnist.yaml")
    shown = ["A", "B", "A_adv", "A_adv-ens"]
    found = roles(params, shown, [])
    assert found is not None
    return found


def verdicts(played, rates, seeds=SEEDS):
    """The verdicts on error rates in percent, one a seed, by target, source and attack."""
    rows = [
        {
            "target": target, "source": source, "attack": attack, "gradient": "exact", "top": 1, "seed": seed, "n": N,
            "errors": round(percent * N / 100),
        }
        for (target, source, attack), of in rates.items()
        for seed, percent in zip(seeds, of, strict=False)
    ]  # fmt: skip
    matrix = ErrorMatrix(rows, "exact", Seeds(seeds, frozenset({"A", "B", "B-2", "C-2"})))
    return {head: cells[1].text for head, cells in findings_table(matrix, played).rows}


def from_b(baseline, ensemble):
    return {("A_adv", "B", "fgsm"): baseline, ("A_adv-ens", "B", "fgsm"): ensemble}


def test_a_difference_far_beyond_that_of_the_seeds_holds_and_the_other_way_round_is_reversed(played):
    apart = [16.0, 15.5, 16.5, 15.8, 16.2], [6.0, 5.6, 6.4, 5.9, 6.1]
    assert verdicts(played, from_b(*apart)) == {LESS_FROM_B: "holds"}
    assert verdicts(played, from_b(*reversed(apart))) == {LESS_FROM_B: "reversed"}


def test_a_difference_no_larger_than_that_of_the_seeds_is_not_shown(played):
    assert verdicts(played, from_b([16.0, 7.0, 25.0, 9.0, 14.0], [8.0, 12.0, 6.0, 11.0, 9.0])) == {
        LESS_FROM_B: "not shown: holds in 0 of 1"
    }


def test_with_one_seed_nothing_is_shown_however_far_apart(played):
    assert verdicts(played, from_b([90.0], [1.0]), seeds=(10,)) == {LESS_FROM_B: "not shown: one seed"}


def test_static_models_that_no_seed_changes_are_one_training(played):
    rates = {("A", "A", attack): [percent] * 5 for attack, percent in (("rand_fgsm", 90.0), ("fgsm", 70.0))}
    assert set(verdicts(played, rates).values()) == {"not shown: one seed"}


def test_the_more_differences_a_table_has_the_larger_each_must_be(played):
    close = from_b([7.0, 7.4, 6.8, 7.1, 6.9], [6.0, 6.1, 5.9, 6.3, 5.8])
    assert verdicts(played, close)[LESS_FROM_B] == "holds"
    more = {("A_adv-ens", source, "fgsm"): [5.0] * 5 for source in ("A_adv-ens", "B-2", "C-2")}
    more |= {("A_adv", source, "fgsm"): [5.0] * 5 for source in ("A_adv", "B-2", "C-2")}
    assert verdicts(played, close | more)[LESS_FROM_B] == "not shown: holds in 0 of 1"


def test_models_of_other_architectures_play_no_part(played):
    params = read_params(Path(__file__).parents[4] / "pipeline/config/profiles/cifar10-fixed.yaml")
    assert roles(params, params.evaluation.targets, []) is None
    assert played.baselines == ["A_adv"]
    assert played.other_holdouts == ["B-2", "C-2"]


def test_baselines_and_ensembles_are_paired_after_the_same_epochs_and_where_both_were_measured(played):
    measured = {"baselines": ["A_adv@3", "A_adv@6", "A_adv"], "ensembles": ["A_adv-ens@6", "A_adv-ens@9", "A_adv-ens"]}
    assert dataclasses.replace(played, **measured).pairs == [("A_adv@6", "A_adv-ens@6"), ("A_adv", "A_adv-ens")]
    assert dataclasses.replace(played, **measured | {"ensembles": ["A_adv-ens"]}).pairs == [("A_adv", "A_adv-ens")]


def test_a_baseline_and_an_ensemble_of_other_epochs_are_no_pair():
    params = read_params(Path(__file__).parents[4] / "pipeline/config/profiles/mnist.yaml")
    assert roles(params, ["A", "B", "A_adv", "A_adv-ens"], []).pairs == [("A_adv", "A_adv-ens")]
    shorter = params.robust["A_adv"].model_copy(update={"epochs": 6})
    params = params.model_copy(update={"robust": params.robust | {"A_adv": shorter}})
    found = roles(params, ["A", "B", "A_adv", "A_adv-ens", "A_adv-ens@6"], [])
    assert found.pairs == [("A_adv", "A_adv-ens@6")]
