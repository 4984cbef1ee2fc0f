"""The pipeline through the real DVC: what runs again after which change, and that a killed run goes on."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import botocore.session
import pytest
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML

from tests.helpers.dvc_projects import DvcProject, environment, new_dvc_project

ROOT = Path(__file__).parents[1]


def add_models_of_other_numbers_of_sources(params):
    params["signs"]["A2"] = {"model": "A", "gradient": "cross_entropy", "label": "predicted"}
    params["signs"]["D2"] = {"model": "D", "gradient": "exact", "label": "true"}
    for name, sources in (("one", ["A"]), ("two", ["A", "C"]), ("five", ["A", "C", "D", "A2", "D2"])):
        params["robust"][name] = {"architecture": "D", "sources": sources, "epochs": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits):
    project = new_dvc_project(tmp_path_factory.mktemp("clone") / "project", digits)
    project.edit(add_models_of_other_numbers_of_sources)
    project.dvc("dvc repro")
    return project


# The time of the whole pipeline counts as that of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


def test_everything_runs_once_and_nothing_twice(project):
    assert project.repro() == []
    assert "Data and pipelines are up to date." in project.dvc("dvc repro")
    for output in (
        "evaluation/10/matrix.parquet",
        "report/index.html",
        "models/snapshots/A_adv-10/A_adv-10@1.safetensors",
    ):
        assert (project.path / output).exists()


def test_robust_models_of_any_number_of_sources_are_trained(project):
    found = {path.stem: list(json.loads(path.read_text())) for path in (project.path / "sources").iterdir()}
    assert {name: len(sources) for name, sources in found.items()} == {
        "A_adv-10": 0,
        "one-10": 1,
        "two-10": 2,
        "A_adv-ens-10": 3,
        "five-10": 5,
    }
    assert all((project.path / f"models/robust/{name}.safetensors").exists() for name in found)


@pytest.fixture
def edit(project):
    """Change the parameters for one test; afterwards the outputs of before come out of DVC's cache."""
    before = project.params()
    yield project.edit
    project.edit(lambda params: params.update(before))
    assert project.repro() == []


def test_a_new_epsilon_reruns_robust_training_and_what_follows(project, edit):
    edit(lambda params: params["attack"].update(eps=0.25))
    assert sorted(project.repro()) == [
        "analyze@10",
        "blackbox@10",
        "digests",
        "evaluate@10",
        "report",
        *(f"train-robust@{name}-10" for name in ("A_adv", "A_adv-ens", "five", "one", "two")),
    ]


def test_more_epochs_for_one_model_rerun_it_its_store_and_what_follows(project, edit):
    edit(lambda params: params["static"]["A"].update(epochs=3))
    assert sorted(project.repro()) == [
        "analyze@10",
        "blackbox@10",
        "digests",
        "evaluate@10",
        "precompute@A",
        "precompute@A2",
        "report",
        "sources",
        *(f"train-robust@{name}-10" for name in ("A_adv-ens", "five", "one", "two")),
        "train-static@A",
    ]


def test_a_changed_store_is_a_change_for_the_models_that_use_it_alone(project, edit):
    edit(lambda params: params["signs"]["C"].update(label="true"))
    # The page of results shows how every store was made.
    shown = {"report"}
    project.dvc("dvc repro precompute@C")
    assert project.changed() - shown == {"sources"}
    project.dvc("dvc repro sources")
    assert project.changed() - shown == {f"train-robust@{name}-10" for name in ("A_adv-ens", "five", "two")}


def test_a_clone_that_pulled_is_up_to_date_also_after_a_model_was_renamed(project, tmp_path):
    renamed = DvcProject(tmp_path / "renamed")
    shutil.copytree(project.path, renamed.path, symlinks=True)

    def rename(params):
        params["robust"]["uno"] = params["robust"].pop("one")
        params["signs"]["D3"] = params["signs"].pop("D2")
        params["robust"]["five"]["sources"] = ["A", "C", "D", "A2", "D3"]

    renamed.edit(rename)
    renamed.dvc("dvc repro")
    for old in (
        "models/robust/one-10.safetensors",
        "models/snapshots/one-10",
        "training/one-10.tsv",
        "signs/D2.zarr",
    ):
        assert not (renamed.path / old).exists()
        assert (renamed.path / "set-aside" / old).exists()
    renamed.dvc(f"dvc remote add -d shared {tmp_path / 'remote'} && dvc push -q")
    renamed.dvc("git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m all")
    clone = DvcProject(tmp_path / "clone")
    renamed.dvc(f"git clone -q {renamed.path} {clone.path}")
    clone.dvc("dvc pull -q")
    assert "Data and pipelines are up to date." in clone.dvc("dvc status")


def test_the_device_reruns_nothing(project, edit):
    edit(lambda params: params.update(device="cpu"))
    assert project.repro() == []


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("dvc stage list", "Store the signed gradients of A over the full training set"),
        ("dvc metrics show", "fgsm_B"),
        ("dvc plots show", "dvc_plots/index.html"),
        ("dvc status", "up to date"),
        ("dvc repro precompute@A", "up to date"),
        ("dvc repro -s evaluate@10", "up to date"),
        ("git status --porcelain", "dvc.lock"),
    ],
)
def test_the_commands_of_the_docs_show_what_they_promise(project, command, shows):
    assert shows in project.dvc(command)


def test_experiments_run_at_once_and_from_a_queue(project, tmp_path):
    copy = DvcProject(tmp_path / "copy")
    shutil.copytree(project.path, copy.path, symlinks=True)
    copy.dvc("git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m all")
    copy.dvc("git config user.name a && git config user.email a@example.org")
    copy.dvc("dvc exp run -S attack.steps=20")
    copy.dvc("dvc exp run --queue -S attack.steps=5")
    copy.dvc("dvc exp run --queue -S attack.steps=15")
    copy.dvc("dvc exp run --run-all")
    copy.dvc("dvc exp show --only-changed")
    table = copy.dvc("dvc exp show --csv")
    assert {row["attack.steps"] for row in csv.DictReader(io.StringIO(table))} >= {"5", "10", "15", "20"}


def test_outputs_are_ignored_by_git(project):
    status = project.dvc("git status --porcelain --untracked-files=all")
    for folder in (
        "data",
        "models",
        "signs",
        "sources",
        "digests",
        "training",
        "evaluation",
        "analysis",
        "blackbox",
        "report",
        ".partial",
        "dvc_plots",
    ):
        assert f" {folder}/" not in status


def test_a_killed_dvc_goes_on_where_it_was(project):
    """DVC and the stage killed together in the middle; DVC runs the stage again, and the work goes on."""

    def store():
        return {str(p): p.read_bytes() for p in sorted((project.path / "signs/A.zarr").rglob("*")) if p.is_file()}

    published = store()
    shutil.rmtree(project.path / ".dvc/cache")
    shutil.rmtree(project.path / "signs/A.zarr")
    process = subprocess.Popen(
        ["dvc", "repro", "-s", "precompute@A"],
        cwd=project.path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while len(list(project.path.glob(".partial/precompute-A-*/ledger/*.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.path / "signs/A.zarr").exists()
    output = project.dvc("dvc repro -s precompute@A")
    assert "going on: " in output
    assert store() == published


def store_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def bucket(monkeypatch):
    """A real S3 endpoint with the bucket `bucket`, where DVC and s3fs find it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    server.stop()


def test_one_store_goes_through_a_remote_and_nothing_else_does(project, bucket):
    store = project.path / "signs/A.zarr"
    published = store_files(store)
    config = (project.path / ".dvc/config").read_text()
    project.dvc("dvc remote add -d shared s3://bucket/project")
    project.dvc("dvc push precompute@A")
    sent = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="bucket")["Contents"]]
    # Files of equal content are one object; one more lists the names.
    assert len(sent) == len(set(published.values())) + 1
    shutil.rmtree(store)
    shutil.rmtree(project.path / ".dvc/cache")
    project.dvc("dvc pull precompute@A")
    assert store_files(store) == published
    (project.path / ".dvc/config").write_text(config)
    # What the other tests need in the cache.
    project.dvc("dvc commit -f -q")


def test_a_store_and_the_cache_share_their_bytes_on_disk(project):
    cached = {path.stat().st_ino for path in (project.path / ".dvc/cache").rglob("*") if path.is_file()}
    shards = list((project.path / "signs/A.zarr/signs/c").rglob("0/0/0"))
    assert shards
    assert all(path.stat().st_ino in cached for path in shards)


def test_another_repository_gets_and_imports_a_store(project, tmp_path):
    published = store_files(project.path / "signs/A.zarr")
    project.dvc("git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m all")
    other = DvcProject(tmp_path / "other")
    other.path.mkdir()
    other.dvc("git init -q && dvc init -q")
    other.dvc(f"dvc get {project.path} signs/A.zarr -o got.zarr")
    other.dvc(f"dvc import {project.path} signs/A.zarr -o imported.zarr")
    assert store_files(other.path / "got.zarr") == store_files(other.path / "imported.zarr") == published
    remembered = YAML(typ="safe").load((other.path / "imported.zarr.dvc").read_text())["deps"][0]
    assert remembered["path"] == "signs/A.zarr"
    assert len(remembered["repo"]["rev_lock"]) == 40
    assert "is intact" in other.dvc("gradshard store verify imported.zarr")
