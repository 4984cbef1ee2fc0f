from pathlib import Path

from pipeline import paper
from pipeline.params import read_params

PROFILES = Path(__file__).parents[2] / "pipeline/profiles"


def test_every_model_of_the_papers_tables_is_one_of_the_mnist_profile():
    called = set(paper.names(read_params(PROFILES / "mnist.yaml")).values())
    assert {name for target, source, _ in paper.ERRORS for name in (target, source) if name} <= called


def test_the_mnist_profile_measures_every_figure_that_the_paper_gives():
    params = read_params(PROFILES / "mnist.yaml")
    called = paper.names(params)
    measured = {(called.get(target), "", "clean") for target in params.evaluation.targets}
    for attack, sources in params.evaluation.attacks.items():
        measured |= {(called.get(t), called.get(s), attack) for t in params.evaluation.targets for s in sources}
    assert set(paper.ERRORS) <= measured


def test_figures_of_mnist_are_compared_with_mnist_alone():
    assert paper.names(read_params(PROFILES / "mnist5k.yaml")) == {}


def test_only_models_trained_as_in_the_paper_bear_its_names():
    params = read_params(PROFILES / "mnist.yaml")
    changed = params.robust.model_copy(
        update={
            "self_only": {
                "other_architecture": params.robust.self_only["A_adv"].model_copy(update={"architecture": "B"}),
                "other_attack": params.robust.self_only["A_adv"].model_copy(update={"attack": "rand_fgsm"}),
            },
            "ensemble": {
                "two_sources": params.robust.ensemble["A_adv-ens"].model_copy(update={"sources": ["A", "C"]}),
            },
        }
    )
    assert set(paper.names(params.model_copy(update={"robust": changed}))) == set("ABCD")
