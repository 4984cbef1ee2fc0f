"""Parameters of a robust model's method: each is of some methods alone."""

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.methods import METHOD_SETTINGS
from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params
from gradshard.pipeline.config.training import RobustModel
from gradshard.pipeline.training.methods.registry import METHODS
from gradshard.storage.errors import GradshardError


@pytest.fixture
def content():
    return YAML(typ="safe").load(profiles()["mnist5k"])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            {"method": "pgd-at"},
            "robust.X.method should be 'ensemble'",
        ),
        (
            {"steps": 10},
            "robust.X.steps is for the attack pgd, but attack is fgsm: remove it, or choose attack: pgd",
        ),
        (
            {"attack": "rand_fgsm", "step_size": 1.0},
            "robust.X.step_size is for the attack pgd, but attack is rand_fgsm: remove it, or choose attack: pgd",
        ),
        (
            {"attack": "pgd", "step_size": 0.01},
            "robust.X.step_size is 0.01 times eps, by which 10 steps never reach eps: a step of 2/255 at eps",
        ),
        (
            {"attack": "pgd", "sources": ["A"], "self": False},
            "robust.X.attack is pgd, by which the model itself perturbs, but self is false: remove one",
        ),
        ({"beta": 6.0}, "robust.X.beta is for the method trades, not for ensemble: remove it"),
        ({"method": "pgd_at", "attack": "pgd"}, "robust.X.attack is not for the method pgd_at, which perturbs every"),
        ({"method": "fast_at", "beta": 6.0}, "robust.X.beta is for the method trades, not for fast_at: remove it"),
        ({"method": "n_fgsm", "noise": -1.0}, "robust.X.noise should be greater than or equal to 0, but is -1.0"),
        (
            {"method": "trades", "gradient": "exact"},
            "robust.X.gradient is not for the method trades, whose signs are its own loss's: remove it",
        ),
        (
            {"method": "free_at", "replays": 3},
            "robust.X.epochs is 2, which 3 replays of every batch do not divide: an epoch counts as many steps as it "
            "has batches, so choose a multiple, or other replays",
        ),
        ({"method": "free_at"}, "robust.X.epochs is 2, which 8 replays of every batch do not divide"),
        ({"method": "pgd_at", "steps": 0}, "robust.X.steps should be greater than 0, but is 0"),
        (
            {"method": "pgd_at", "sources": ["A"]},
            "robust.X.sources is not for the method pgd_at, which perturbs every image itself: remove it",
        ),
        ({"method": "pgd_at", "self": True}, "robust.X.self is not for the method pgd_at"),
        ({"method": "pgd_at", "clean_weight": 0.5}, "robust.X.clean_weight is not for the method pgd_at"),
        ({"method": "trades", "adversarial_weight": 0.3}, "robust.X.adversarial_weight is not for the method trades"),
        ({"method": "pgd_at", "attack": "fgsm"}, "robust.X.attack is not for the method pgd_at"),
        (
            {"method": "pgd_at", "step_size": 0.01},
            "robust.X.step_size is 0.01 times eps, by which 10 steps never reach eps: a step of 2/255 at eps "
            "8/255 is written 0.25",
        ),
        ({"method": "pgd_at", "step_size": "2/255"}, "robust.X.step_size should be a valid number, but is '2/255'"),
    ],
)
def test_what_a_method_does_not_take_is_told_in_one_sentence(content, model, sentence):
    content["robust"]["X"] = {"architecture": "A", "epochs": 2, **model}
    with pytest.raises(GradshardError) as told:
        check_params(content, where="params.yaml")
    assert str(told.value).startswith(f"params.yaml: {sentence}")


def test_what_was_given_to_a_method_is_what_its_model_is_recorded_with():
    model = RobustModel.model_validate({"architecture": "A", "epochs": 2, "method": "pgd_at", "steps": 7})
    assert model.settings == {"steps": 7}
    assert model.model_dump()["method"] == "pgd_at"
    assert "step_size" not in model.model_dump()


@pytest.mark.parametrize("name", list(METHODS))
def test_every_setting_of_a_method_is_a_key_and_may_be_left_out(name):
    assert set(METHODS[name].settings) <= set(METHOD_SETTINGS)
    assert RobustModel.model_validate({"architecture": "A", "epochs": 8, "method": name}).settings == {}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"method": "pgd_at"}, "static.X.eps is missing, within which pgd_at perturbs"),
        ({"eps": 0.3}, "static.X.eps is for adversarial training: name a method (fast_at, "),
        ({"steps": 7}, "static.X.steps is for the method pgd_at, trades, and none is named: name one in method"),
        ({"method": "ensemble", "eps": 0.3}, "static.X.method is ensemble, which only robust models are trained by: "),
        ({"method": "pgd_at", "eps": 0.3, "beta": 6.0}, "static.X.beta is for the method trades, not for pgd_at"),
        ({"method": "free_at", "eps": 0.3, "replays": 3}, "static.X.epochs is 2, which 3 replays of every batch do"),
        (
            {"method": "pgd_at", "eps": 0.3, "epochs": 0, "weights": "pretrained"},
            "static.X.method is given, but epochs is 0, which takes weights as they are: remove one",
        ),
    ],
)
def test_what_a_static_model_lacks_for_adversarial_training_is_told_in_one_sentence(content, model, sentence):
    content["static"]["X"] = {"architecture": "A", "epochs": 2, **model}
    with pytest.raises(GradshardError) as told:
        check_params(content, where="params.yaml")
    assert str(told.value).startswith(f"params.yaml: {sentence}")


def test_a_static_model_without_a_method_is_recorded_as_before_there_were_any(content):
    dumped = check_params(content, where="").static["A"].model_dump()
    assert set(dumped) == {"architecture", "epochs", "seed", "weights"}
