"""Parameters of a robust model: what they mean together, and what is refused in one sentence."""

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params
from gradshard.pipeline.config.training import AdversarialParams, RobustModel
from gradshard.storage.errors import GradshardError


@pytest.fixture
def content():
    return YAML(typ="safe").load(profiles()["mnist5k"])


@pytest.mark.parametrize(
    ("model", "adversarial", "sentence"),
    [
        ({"self": False}, {}, "robust.X.self is false and there are no sources, so nothing perturbs: name sign stores"),
        (
            {"self": False, "sources": ["A"], "weights": {"self": 2}},
            {},
            "robust.X.weights names self, which is not a source of this model (there are A)",
        ),
        (
            {"sources": ["A"], "weights": {"D": 2}},
            {},
            "robust.X.weights names D, which is not a source of this model (there are self, A)",
        ),
        ({"sources": ["A"], "weights": {"A": 0}}, {}, "robust.X.weights.A should be greater than 0, but is 0"),
        (
            {"sources": ["A"], "weights": {"A": 1.5}, "schedule": "rotate"},
            {},
            "robust.X.weights.A is 1.5, but sources that rotate weigh whole numbers of batches",
        ),
        (
            {"clean_weight": 0.2},
            {"objective": "half"},
            "robust.X.clean_weight is for the objective both: remove it, or choose that",
        ),
        (
            {"adversarial_weight": 0.3},
            {},
            "robust.X.adversarial_weight is for the objective half: remove it, or choose that",
        ),
        (
            {"training": {"auxiliary": 0.4, "compile": "on"}},
            {},
            "robust.X.training.auxiliary is for a model that is not compiled: set it to null, or compile to off",
        ),
        (
            {"sources": ["A"], "schedule": "all"},
            {"objective": "half"},
            "adversarial.objective is half, which replaces images by those of one source: choose both, or for robust.X "
            "the schedule random or rotate instead of all",
        ),
        (
            {"sources": ["A", "C"], "schedule": "top_k"},
            {"top_k": 4},
            "adversarial.top_k is 4, but robust.X has 3 sources (self, A, C): lower it",
        ),
        ({"training": {"batches": 8}}, {}, "unknown key robust.X.training.batches (did you mean batch?)"),
        ({"training": {"average": 1.0}}, {}, "robust.X.training.average should be less than 1, but is 1.0"),
        ({"sources": ["A"], "attack": "rand_fgsm"}, {}, "robust.X.attack is rand_fgsm, which no stored sign serves"),
        (
            {"attack": "rand_fgsm"},
            {"epsilon_law": "truncated_normal"},
            "robust.X.attack is rand_fgsm, whose random step is larger than some of the epsilons that truncated_normal "
            "draws: choose adversarial.epsilon_law fixed, or another attack",
        ),
        ({"label_at": "clean"}, {}, "robust.X.label_at says which image's label rand_fgsm takes"),
        ({"attack": "rand_fgsm", "label_at": "clean"}, {"label": "true"}, "robust.X.label_at says which image's"),
        ({"init_from": "Z"}, {}, "robust.X.init_from names Z, which is not a static model (there are A, B, C, D)"),
        ({"init_from": "A_adv"}, {}, "robust.X.init_from names A_adv, which is not a static model (there are"),
        (
            {"init_from": "C"},
            {},
            "robust.X.init_from names C, of architecture C, but this model is of A: begin with a model of the same",
        ),
        ({"init_from": "B"}, {}, "robust.X.init_from names the holdout B, which no training may see: begin with"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(content, model, adversarial, sentence):
    content["robust"]["X"] = {"architecture": "A", "epochs": 1, **model}
    content["adversarial"] |= adversarial
    with pytest.raises(GradshardError) as told:
        check_params(content, where="params.yaml")
    assert str(told.value).startswith(f"params.yaml: {sentence}")


def test_a_model_that_gives_probabilities_is_not_begun_with(content):
    content["static"]["P"] = {"architecture": "A", "epochs": 1, "output": "probabilities"}
    content["robust"]["X"] = {"architecture": "A", "epochs": 1, "init_from": "P"}
    with pytest.raises(GradshardError, match=r"robust\.X\.init_from names P, which gives probabilities"):
        check_params(content, where="params.yaml")


def test_what_stands_for_the_model_begun_with_must_not_be_used_itself(content):
    content["static"]["A-2"] = {"architecture": "A", "epochs": 1}
    content["robust"]["X"] = {"architecture": "A", "epochs": 1, "init_from": "A-2"}
    content["signs"]["A-2"] = content["signs"]["A"] | {"model": "A-2"}
    content["stand_ins"] = {10: {"A": "A-2"}}
    with pytest.raises(GradshardError, match=r"names A-2, which robust\.X\.init_from names too"):
        check_params(content, where="params.yaml")


def test_sources_weigh_by_name_and_self_can_be_left_out(content):
    content["robust"]["X"] = {"architecture": "A", "epochs": 1, "sources": ["A", "C"], "weights": {"self": 0.5}}
    content["robust"]["Z"] = {"architecture": "A", "epochs": 1, "sources": ["A", "C"], "self": False}
    robust = check_params(content, where="params.yaml").robust
    assert robust["X"].crafters == ("self", "A", "C")
    assert robust["X"].weights == {"self": 0.5}
    assert robust["Z"].crafters == ("A", "C")


def test_a_schedule_of_all_sources_leaves_models_of_one_alone(content):
    """Standard adversarial training has itself only, so a larger top_k than one is none of its concern."""
    content["adversarial"] |= {"schedule": "top_k", "top_k": 4}
    assert check_params(content, where="params.yaml").robust["A_adv"].crafters == ("self",)


def test_parameters_of_before_are_written_into_weights_as_before(content):
    """A recipe names no key that its model does not use, so that old parameters give old bytes."""
    model = RobustModel.model_validate(content["robust"]["A_adv-ens"])
    assert set(model.model_dump()) == {"architecture", "sources", "epochs", "snapshots", "attack", "gradient"}
    assert not {"top_k", "ema_decay", "held_back"} & set(
        AdversarialParams.model_validate(content["adversarial"]).model_dump()
    )


def test_with_rows_held_back_every_robust_model_has_a_best_snapshot(content):
    content["evaluation"]["targets"] = ["A", "A_adv@best"]
    with pytest.raises(GradshardError, match=r"evaluation\.targets names A_adv@best, which is not a model"):
        check_params(content, where="params.yaml")
    content["adversarial"]["held_back"] = {"rows": 500}
    assert check_params(content, where="params.yaml").in_run("A_adv@best", 10) == "A_adv-10@best"


def test_a_model_trains_by_what_it_says_otherwise(content):
    content["robust"]["A_adv"]["training"] = {"batch": 7, "learning_rate": 0.25}
    params = check_params(content, where="params.yaml")
    own, other = params.for_model("A_adv"), params.for_model("A_adv-ens")
    assert own.training == params.training.model_copy(update={"batch": 7, "learning_rate": 0.25})
    assert own.adversarial == params.adversarial.model_copy(update={"learning_rate": 0.25})
    assert other.training == params.training
    assert other.adversarial == params.adversarial
    assert params.robust["A_adv"].model_dump()["training"] == {"batch": 7, "learning_rate": 0.25}
    assert "training" not in params.robust["A_adv-ens"].model_dump()
