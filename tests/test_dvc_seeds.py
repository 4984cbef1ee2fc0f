"""Seeds under the real DVC: one more computes what is new, and every table is then over all of them."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from gradshard.storage.formats.sign_reader import open_store
from tests.helpers.dvc_projects import new_dvc_project

pytestmark = pytest.mark.slow


def small(params):
    """Three static models, a robust model with a source, one that begins with weights, and one attack."""
    for name in ("C", "D"):
        del params["signs"][name]
    del params["static"]["D"]
    for model in (*params["static"].values(), *params["robust"].values()):
        model["epochs"] = 1
        model.pop("snapshots", None)
    params["robust"]["A_adv-ens"]["sources"] = ["A"]
    params["robust"]["A_adv"]["init_from"] = "C"
    names = ["A", "A_adv", "A_adv-ens"]
    params["evaluation"].update(targets=names, attacks={"fgsm": [*names, "B"]}, illustrated=["A"], diagnosed=names)
    params["analysis"].update(models=["A", "A_adv"], examples=5, plane={"model": "A_adv", "source": "B", "points": 1})
    params["blackbox"].update(targets=[], forest=None)


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits):
    """A finished run over two seeds."""
    project = new_dvc_project(tmp_path_factory.mktemp("seeds") / "project", digits)
    project.edit(small)
    project.edit(lambda params: params.update(seeds=[10, 11]))
    project.dvc("dvc repro")
    return project


def shown(project):
    """The cell of A_adv under FGSM from B in the report's tables, as CSV has it."""
    with (project.path / "report/tables/defences-exact.csv").open() as file:
        rows = {(row["row"], row["column"]): row for row in csv.DictReader(file)}
    return rows["A_adv, 1 epochs", "FGSM from B"]


def test_one_more_seed_runs_itself_alone_and_is_in_every_table(project):
    before = {path: path.read_bytes() for path in (project.path / "models/robust").iterdir()}
    assert (shown(project)["runs"], shown(project)["varying"]) == ("2", "training")
    project.edit(lambda params: params.update(seeds=[10, 11, 12]))
    assert sorted(project.repro()) == [
        "analyze@12",
        "blackbox@12",
        "digests",
        "evaluate@12",
        "report",
        "sources",
        "train-robust@A_adv-12",
        "train-robust@A_adv-ens-12",
    ]
    assert project.repro() == []
    assert {path: path.read_bytes() for path in before} == before
    assert shown(project)["runs"] == "3"
    assert float(shown(project)["low"]) <= float(shown(project)["value"]) <= float(shown(project)["high"])
    assert "over 3 seeds of training, the same static models." in (project.path / "report/tables.md").read_text()
    metrics = json.loads((project.path / "report/metrics.json").read_text())
    assert metrics["A_adv-ens"]["fgsm_B"]["seeds"] == 3
    rows = pq.read_table(project.path / "report/matrix.parquet").to_pylist()
    assert {row["seed"] for row in rows} == {10, 11, 12}
    assert len(rows) == 3 * len([row for row in rows if row["seed"] == 12])
    assert "fgsm_B" in project.dvc("dvc metrics show")
    # A is the same for every seed, and measured with the first.
    measured = {
        seed: list(json.loads((project.path / f"analysis/{seed}/gradients.json").read_text())["models"])
        for seed in (10, 11, 12)
    }
    assert measured == {10: ["A", "A_adv"], 11: ["A_adv"], 12: ["A_adv"]}
    with (project.path / "report/tables/gradient-norms.csv").open() as file:
        norms = {row["row"]: row for row in csv.DictReader(file) if row["column"] == "mean, exact"}
    assert (norms["A"]["runs"], norms["A_adv"]["runs"]) == ("", "3")


def test_other_static_models_may_stand_for_those_of_a_further_seed(project):
    def with_others(params):
        params["seeds"].append(13)
        for name in ("A", "B"):
            params["static"][f"{name}-2"] = params["static"][name] | {"seed": 7}
        params["signs"]["A-2"] = params["signs"]["A"] | {"model": "A-2"}
        params["stand_ins"] = {13: {"A": "A-2", "B": "B-2"}}

    project.edit(with_others)
    assert sorted(project.repro()) == [
        # A changes with the seed now.
        "analyze@11",
        "analyze@12",
        "analyze@13",
        "blackbox@13",
        "digests",
        "evaluate@13",
        "precompute@A-2",
        "report",
        "sources",
        "train-robust@A_adv-13",
        "train-robust@A_adv-ens-13",
        "train-static@A-2",
        "train-static@B-2",
    ]
    digests = json.loads((project.path / "digests/evaluate-13.json").read_text())
    assert list(digests) == ["A-2", "A_adv-13", "A_adv-ens-13", "B-2"]
    provenance = json.loads((project.path / "evaluation/13/provenance.json").read_text())
    assert provenance["stores"] == {"A-2": open_store(project.path / "signs/A-2.zarr").manifest.content}
    tables = (project.path / "report/tables.md").read_text()
    assert "seeds of training, static models varying too." in tables
    assert "the same static models" not in tables


def test_a_seed_that_is_taken_out_leaves_every_table(project):
    project.edit(lambda params: params.update(seeds=[10], stand_ins={}))
    project.dvc("dvc repro")
    assert [path.name for path in (project.path / "evaluation").iterdir() if path.name.isdigit()] == ["10"]
    for kept in ("evaluation/11/matrix.parquet", "analysis/11/gradients.json", "blackbox/11/results.json"):
        assert (project.path / "set-aside" / kept).exists()
    assert {row["seed"] for row in pq.read_table(project.path / "report/matrix.parquet").to_pylist()} == {10}
    page = (project.path / "report/index.html").read_text()
    assert page.index("No claim about training can be made from this page") < page.index("Error rates in percent")


def test_a_static_model_trained_anew_is_a_change_for_the_models_that_begin_with_it_alone(project):
    assert project.repro() == []
    project.edit(lambda params: params["static"]["C"].update(seed=77))
    project.dvc("dvc repro train-static@C")
    project.dvc("dvc repro sources")
    # These two look at every model.
    assert project.changed() - {"digests", "report"} == {"train-robust@A_adv-10"}
