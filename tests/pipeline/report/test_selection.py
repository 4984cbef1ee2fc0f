"""Which models each table shows, on the parameters of the paper's experiment."""

from pathlib import Path

import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.report import selection


@pytest.fixture(scope="module")
def params():
    return read_params(Path(__file__).parents[3] / "pipeline/config/profiles/mnist.yaml")


def test_each_gradients_tables_show_the_models_trained_on_it(params):
    assert selection.shown_targets(params, "exact") == ["A", "B", "A_adv", "A_adv-ens", "A_adv@6", "A_adv-ens@6"]
    assert selection.shown_targets(params, "cross_entropy") == [
        "A",
        "B",
        "A_adv_ce",
        "A_adv-ens_ce",
        "A_adv_ce@6",
        "A_adv-ens_ce@6",
        "B_adv_ce",
        "B_adv_ce@6",
    ]


def test_no_claim_of_the_paper_is_about_a_model_that_another_papers_method_trained(params):
    other = params.robust["A_adv"].model_copy(update={"method": "pgd_at"})
    beside = params.model_copy(update={"robust": {"pgd": other, **params.robust}})
    assert selection.standard(beside, ["A", "pgd", "A_adv", "A_adv-ens"]) == ["A_adv"]


def test_the_models_that_a_claim_would_be_about_are_the_robust_ones_among_the_targets(params):
    assert selection.trained_here(params) == [
        "A_adv",
        "A_adv_ce",
        "A_adv-rand_ce",
        "A_adv-ens",
        "A_adv-ens_ce",
        "B_adv_ce",
    ]
    fewer = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"targets": ["A", "A_adv@6"]})})
    assert selection.trained_here(fewer) == ["A_adv"]


def test_models_of_random_steps_and_held_out_models_have_tables_of_their_own(params):
    assert selection.trained_on_random_steps(params, "cross_entropy") == ["A_adv-rand_ce"]
    assert selection.trained_on_random_steps(params, "exact") == []
    assert selection.held_out(params) == ["B", "B-2", "C-2"]


def test_a_model_of_an_architecture_without_an_ensemble_compares_with_none(params):
    assert selection.compared(params, selection.shown_targets(params, "cross_entropy")) == {
        "6 epochs": ["A_adv_ce@6", "A_adv-ens_ce@6"],
        "12 epochs": ["A_adv_ce", "A_adv-ens_ce"],
    }


PROFILES = Path(__file__).parents[3] / "pipeline/config/profiles"


@pytest.mark.parametrize(
    ("profile", "groups"),
    [
        (
            "imagenet",
            {
                "inception_v3": ["v3", "v3_adv", "v3_adv-ens3", "v3_adv-ens4"],
                "inception_resnet_v2": ["IncRes_v2", "IncRes_v2_adv-ens"],
            },
        ),
        (
            "imagenet-eval",
            {"inception_v3": ["v3", "v3_adv"], "inception_resnet_v2": ["IncRes_v2", "IncRes_v2_adv-ens"]},
        ),
        ("cifar10", {"24 epochs": ["v3_adv", "v3_adv-ens3", "v3_adv-ens4"]}),
        ("cifar10-fixed", {"24 epochs": ["VGG_adv", "VGG_adv-ens"]}),
        ("mnist5k", {"6 epochs": ["A_adv", "A_adv-ens"]}),
    ],
)
def test_models_that_compare_are_grouped_as_in_the_papers_tables(profile, groups):
    params = read_params(PROFILES / f"{profile}.yaml")
    shown = selection.shown_targets(params, params.evaluation.gradients[0])
    assert selection.compared(params, shown) == groups


def test_snapshots_of_least_error_compare_with_one_another(params):
    targets = ["A_adv", "A_adv@6", "A_adv@best", "A_adv-ens@best"]
    chosen = params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"targets": targets})})
    groups = selection.compared(chosen, targets)
    assert groups == {"6 epochs": ["A_adv@6"], "12 epochs": ["A_adv"], "best": ["A_adv@best", "A_adv-ens@best"]}


def test_a_model_that_a_training_began_with_is_not_one_that_no_training_saw(params):
    assert selection.held_out(params) == ["B", "B-2", "C-2"]
    begun = params.robust["A_adv"].model_copy(update={"init_from": "B-2"})
    begun = params.model_copy(update={"robust": params.robust | {"A_adv": begun}})
    assert selection.held_out(begun) == ["B", "C-2"]
