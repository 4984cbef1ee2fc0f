from pathlib import Path

import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.report.paper import paper_figures

PROFILES = Path(__file__).parents[4] / "pipeline/config/profiles"


def test_every_model_of_the_papers_tables_is_one_of_the_mnist_profile():
    called = set(paper_figures.names(read_params(PROFILES / "mnist.yaml")).values())
    assert {name for target, source, _ in paper_figures.ERRORS for name in (target, source) if name} <= called


def test_the_mnist_profile_measures_every_figure_that_the_paper_gives():
    assert set(paper_figures.ERRORS) <= measured_in("mnist")


@pytest.mark.parametrize("profile", ["mnist5k", "cifar10", "cifar10-fixed"])
def test_figures_are_compared_with_the_papers_own_data_alone(profile):
    assert paper_figures.names(read_params(PROFILES / f"{profile}.yaml")) == {}


def measured_in(profile):
    params = read_params(PROFILES / f"{profile}.yaml")
    called = paper_figures.names(params)
    found = {(called.get(target), "", "clean") for target in params.evaluation.targets}
    for attack, sources in params.evaluation.attacks.items():
        found |= {(called.get(t), called.get(s), attack) for t in params.evaluation.targets for s in sources}
    return found


def test_the_imagenet_profile_measures_every_figure_that_the_paper_gives_for_imagenet():
    assert set(paper_figures.IMAGENET_ERRORS) <= measured_in("imagenet")


def test_the_evaluation_profile_measures_all_of_table_5_that_is_about_published_models():
    models = {"v3", "v3_adv", "v4", "IncRes_v2", "IncRes_v2_adv-ens"}
    about = {key for key in paper_figures.IMAGENET_ERRORS if {key[0], key[1]} <= models | {""}}
    assert len(about) == 28
    assert about <= measured_in("imagenet-eval")


def test_figures_are_by_top_k():
    assert paper_figures.error("v3_adv-ens4", "v4", "fgsm", 1) == 29.6
    assert paper_figures.error("v3_adv-ens4", "v4", "fgsm", 5) == 9.6
    assert paper_figures.error("v3_adv-ens4", "v4", "fgsm", 3) is None
    assert paper_figures.error("A", "A", "fgsm", 1) == 71.4
    assert paper_figures.error("A", "A", "fgsm", 5) is None
    assert paper_figures.error("", "", "fgsm", 1) is None


def test_only_models_trained_as_in_the_paper_bear_its_names():
    params = read_params(PROFILES / "mnist.yaml")
    changed = {
        "other_architecture": params.robust["A_adv"].model_copy(update={"architecture": "B"}),
        "other_attack": params.robust["A_adv"].model_copy(update={"attack": "rand_fgsm"}),
        "two_sources": params.robust["A_adv-ens"].model_copy(update={"sources": ["A", "C"]}),
        "no_own_share": params.robust["A_adv-ens"].model_copy(update={"live": False}),
        "other_weights": params.robust["A_adv-ens"].model_copy(update={"weights": {"A": 2.0}}),
        "all_at_once": params.robust["A_adv-ens"].model_copy(update={"schedule": "all"}),
        "other_method": params.robust["A_adv"].model_copy(update={"method": "pgd_at"}),
        "begun_with_weights": params.robust["A_adv"].model_copy(update={"init_from": "A"}),
    }
    assert set(paper_figures.names(params.model_copy(update={"robust": changed}))) == set("ABCD")


@pytest.mark.parametrize(
    ("profile", "changed"),
    [
        ("mnist", {"objective": "half"}),
        ("mnist", {"clean_weight": 0.3}),
        ("mnist", {"epsilon_law": "truncated_normal"}),
        ("mnist", {"label": "true"}),
        ("imagenet", {"objective": "both"}),
        ("imagenet", {"epsilon_law": "fixed"}),
        ("imagenet", {"label": "true"}),
    ],
)
def test_no_robust_model_bears_the_papers_names_where_all_are_trained_otherwise(profile, changed):
    params = read_params(PROFILES / f"{profile}.yaml")
    adversarial = params.adversarial.model_copy(update=changed)
    assert set(paper_figures.names(params)) & set(params.robust)
    found = paper_figures.names(params.model_copy(update={"adversarial": adversarial}))
    assert found
    assert not set(found) & set(params.robust)


@pytest.mark.parametrize("profile", ["mnist", "imagenet"])
def test_where_attacks_have_another_epsilon_no_figure_of_the_papers_stands_beside_ours(profile):
    params = read_params(PROFILES / f"{profile}.yaml")
    assert (
        paper_figures.names(params.model_copy(update={"attack": params.attack.model_copy(update={"epsilon": 0.1})}))
        == {}
    )
