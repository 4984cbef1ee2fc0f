"""Sources of a battery that a target's training saw."""

import copy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.battery import same_architecture_for_some, split_battery, unseen_by_all
from gradshard.pipeline.config.schema import Params, check_params
from gradshard.storage.errors import GradshardError

ROOT = Path(__file__).parents[3]


def of(**battery: object) -> Params:
    """The default profile with a second D, and a battery."""
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    params["static"]["D2"] = {"architecture": "D", "epochs": 5, "seed": 9}
    params["evaluation"]["battery"] = battery
    return check_params(params, where="params.yaml")


def test_sources_are_split_by_what_the_training_of_each_target_saw():
    params = of(sources=["C", "D", "D2", "B", "A_adv"], attacks=["fgsm", "pgd"])
    assert split_battery(params, "A_adv-ens") == {
        "all": ["C", "D", "D2", "B", "A_adv"],
        "seen": ["C", "D"],
        # A_adv is of architecture A, whose store A_adv-ens was trained on.
        "same architecture": ["D2", "A_adv"],
        "unseen": ["B"],
    }
    assert split_battery(params, "A_adv") == {"all": ["C", "D", "D2", "B"], "unseen": ["C", "D", "D2", "B"]}
    assert "B" not in split_battery(params, "B")["all"]


def test_what_a_target_was_at_another_epoch_of_its_training_is_not_unseen():
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    params["robust"]["A_adv"]["snapshots"] = [3]
    params["evaluation"]["battery"] = {"sources": ["A", "B", "A_adv@3"], "attacks": ["fgsm"]}
    assert split_battery(check_params(params, where="params.yaml"), "A_adv") == {
        "all": ["A", "B", "A_adv@3"],
        "seen": ["A_adv@3"],
        "unseen": ["A", "B"],
    }


def test_a_target_has_seen_the_model_whose_weights_it_began_with():
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    params["static"]["A2"] = {"architecture": "A", "epochs": 5, "seed": 9}
    params["robust"]["A_adv"]["init_from"] = "A"
    params["evaluation"]["battery"] = {"sources": ["A", "A2", "C"], "attacks": ["fgsm"]}
    assert split_battery(check_params(params, where="params.yaml"), "A_adv") == {
        "all": ["A", "A2", "C"],
        "seen": ["A"],
        "same architecture": ["A2"],
        "unseen": ["C"],
    }


def test_sources_are_unseen_by_all_if_no_target_saw_them_nor_their_architecture_nor_is_one():
    params = of(sources=["C", "D", "D2", "B"], attacks=["fgsm"])
    assert "B" in params.evaluation.targets
    assert unseen_by_all(params) == []
    targets = params.evaluation.model_copy(update={"targets": ["A", "A_adv", "A_adv-ens"]})
    params = params.model_copy(update={"evaluation": targets})
    assert unseen_by_all(params) == ["B"]
    assert same_architecture_for_some(params) == ["D2"], "C and D are seen by A_adv-ens"


def test_a_battery_adds_its_cells_and_own_attacks_to_those_of_the_evaluation_each_once():
    evaluation = of(sources=["B", "C"], attacks=["fgsm", "mifgsm"]).evaluation
    assert evaluation.crafters["fgsm"] == [*evaluation.attacks["fgsm"], "C"]
    assert evaluation.crafters["mifgsm"] == ["B", "C"]
    assert evaluation.crafters["pgd"] == evaluation.targets
    assert "C" in evaluation.named


def test_parameters_without_a_battery_are_recorded_as_they_were_before_there_was_one():
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    assert "battery" not in check_params(params, where="").model_dump()["evaluation"]


@pytest.mark.parametrize(
    ("battery", "saying"),
    [
        ({"sources": ["Z"], "attacks": ["fgsm"]}, "evaluation.battery.sources names Z, which is not a model"),
        ({"sources": ["B"], "attacks": ["fgms"]}, "evaluation.battery.attacks names fgms, which is not an attack"),
        ({"sources": ["B"], "attacks": ["fgsm"], "own": ["aa"]}, "evaluation.battery.own names aa, which is not an"),
    ],
)
def test_a_battery_of_what_there_is_not_is_refused(battery, saying):
    with pytest.raises(GradshardError, match=saying):
        of(**battery)


def test_the_baseline_of_the_study_must_be_a_target():
    params = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    params["analysis"]["baseline"] = "D"
    with pytest.raises(
        GradshardError, match=r"analysis.baseline names D, which is not a target \(evaluation.targets\)"
    ):
        check_params(params, where="params.yaml")
