"""Costs of targets, from what trainings and stores left behind, and null where they left nothing."""

import copy
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.schema import Params, check_params
from gradshard.stages.jobs.costs import costs
from gradshard.storage.errors import GradshardError

ROOT = Path(__file__).parents[3]
TARGETS = ["A", "A_adv-ens", "A_adv-ens@best", "A_adv-ens@1"]


@pytest.fixture
def params() -> Params:
    content = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))
    content["adversarial"]["held_back"] = {"rows": 100}
    content["robust"]["A_adv-ens"]["snapshots"] = [1]
    content["evaluation"]["targets"] = TARGETS
    return check_params(content, where="params.yaml")


@pytest.fixture
def found(params, small_store, tmp_path, monkeypatch):
    """Costs in a project with a training of A_adv-ens alone, and of its stores that of A alone."""
    monkeypatch.chdir(tmp_path)
    Path("training").mkdir()
    Path("signs").mkdir()
    Path("M.zarr").rename("signs/A.zarr")
    counted = {"passes": {"images": 4200, "forward": 9000, "backward": 8400}, "prior_bytes": 700}
    Path("training/A_adv-ens-10.json").write_text(json.dumps(counted))
    content = {"A": small_store.manifest.content, "C": "0" * 64}
    return costs(params, 10, 700, {target: content if "ens" in target else {} for target in TARGETS})


def test_what_is_known_is_of_the_training_and_of_the_stores(found, small_store):
    assert found["A_adv-ens"] == {
        **{"rows": 700, "forward": 9000, "backward": 8400, "prior_bytes": 700},
        "stores": {
            "A": {"rows": 700, "bytes": small_store.manifest.size, "forward": 700, "backward": 700},
            "C": None,
        },
    }


def test_a_model_without_a_record_of_its_training_has_no_passes(found):
    assert found["A"] == {"rows": 700, "forward": None, "backward": None, "stores": {}}


def test_the_best_snapshot_took_the_whole_training_and_another_is_not_known(found):
    assert found["A_adv-ens@best"] == found["A_adv-ens"]
    assert (found["A_adv-ens@1"]["forward"], found["A_adv-ens@1"]["backward"]) == (None, None)


def test_a_store_that_is_not_the_one_trained_on_does_not_count(params, small_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("signs").mkdir()
    Path("M.zarr").rename("signs/A.zarr")
    stores = {target: {"A": "1" * 64} for target in TARGETS}
    assert costs(params, 10, 700, stores)["A_adv-ens"]["stores"] == {"A": None}


@pytest.mark.parametrize("damaged", ["", '{"passes": ', "[]"])
def test_a_damaged_record_of_a_training_is_told_with_its_remedy(params, tmp_path, monkeypatch, damaged):
    monkeypatch.chdir(tmp_path)
    Path("training").mkdir()
    Path("training/A_adv-ens-10.json").write_text(damaged)
    with pytest.raises(GradshardError, match=r"training/A_adv-ens-10.json is damaged \(.*\): train A_adv-ens again"):
        costs(params, 10, 700, {target: {} for target in TARGETS})
