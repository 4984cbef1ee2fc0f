"""Several mistakes in one parameter file: what is told of each, and how many are."""

import re

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params
from gradshard.storage.errors import GradshardError


@pytest.fixture
def content():
    """The default parameters, to be changed."""
    return YAML(typ="safe").load(profiles()["mnist5k"])


def test_several_mistakes_are_told_at_once(content):
    content["trainin"], content["training"]["batch"], content["static"]["A"]["epoch"] = {}, 0, 3
    with pytest.raises(GradshardError) as caught:
        check_params(content, where="params.yaml")
    told = ", ".join(sorted(str(caught.value).removeprefix("params.yaml: ").split("; ")))
    assert re.fullmatch(r"training.batch should be .*, unknown key static.A.epoch .*, unknown key trainin .*", told)


def test_a_list_of_keys_is_told_once(content):
    for number in range(3):
        content["attack"][f"nothing_{number}"] = {}
    with pytest.raises(GradshardError) as caught:
        check_params(content, where="params.yaml")
    assert str(caught.value).count("(there are eps, alpha, ") == 1
    assert str(caught.value).endswith("; unknown key attack.nothing_1; unknown key attack.nothing_2")


def test_of_many_mistakes_the_others_are_counted(content):
    for number in range(8):
        content[f"nothing_{number}"] = {}
    with pytest.raises(GradshardError, match=r"nothing_4.*; and 3 more$"):
        check_params(content, where="params.yaml")


@pytest.mark.parametrize(
    ("section", "word", "told"),
    [
        (("signs", "C"), "epsilon", "unknown key signs.C.epsilon (did you mean eps?)"),
        (("attack",), "epsilon", "unknown key attack.epsilon (did you mean eps?)"),
        (("training",), "lr", "unknown key training.lr (did you mean learning_rate?)"),
        (("signs", "C"), "iterations", "unknown key signs.C.iterations (did you mean steps?)"),
        (("robust", "A_adv-ens"), "source", "unknown key robust.A_adv-ens.source (did you mean sources?)"),
        (("streaming",), "epsilon", "unknown key streaming.epsilon (there are memory"),
    ],
)
def test_a_key_that_is_called_otherwise_elsewhere_is_named(content, section, word, told):
    place = content
    for key in section:
        place = place.setdefault(key, {})
    place[word] = 0.3
    with pytest.raises(GradshardError) as caught:
        check_params(content, where="params.yaml")
    assert told in str(caught.value)
