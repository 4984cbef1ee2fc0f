"""A cluster that cannot do our work says so within seconds: no workers, or workers without gradshard."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs.sign_stores import compute_shard
from gradshard.stages.machines import cluster_health
from gradshard.stages.machines.dask_cluster import dask_client, map_tasks
from gradshard.storage.errors import GradshardError

# A process of Dask in which a package cannot be imported.
WITHOUT = """
import importlib, sys
sys.modules[sys.argv.pop(1)] = None
importlib.import_module(sys.argv.pop(1)).main()
"""


@pytest.fixture
def start(tmp_path):
    """Start a scheduler or worker, where all can be imported or something lacks; gives the process."""
    with ExitStack() as stack:

        def begin(module, *options, lacking=None):
            name = f"distributed.cli.{module}"
            command = ["-c", WITHOUT, lacking, name] if lacking else ["-m", name]
            file = ["--scheduler-file", str(tmp_path / "scheduler.json")]
            process = subprocess.Popen(
                [sys.executable, *command, *file, *options], cwd=tmp_path, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield begin


def scheduler(start, tmp_path, **options):
    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", **options)
    file = tmp_path / "scheduler.json"
    while not file.exists() or not file.read_text().endswith("}"):
        time.sleep(0.1)
    return ClusterConfig(scheduler=json.loads(file.read_text())["address"])


def worker(start, **options):
    return start("dask_worker", "--no-nanny", "--nthreads", "1", "--no-dashboard", **options)


@pytest.fixture
def said(monkeypatch):
    """What the user is told."""
    told = []
    monkeypatch.setattr(cluster_health, "echo", told.append)
    return told


def test_a_scheduler_without_workers_is_told_at_once_and_given_up_after_a_limit(start, tmp_path, said, monkeypatch):
    monkeypatch.setattr(cluster_health, "_FIRST_WORKER_SECONDS", 1)
    place = scheduler(start, tmp_path)
    with (
        pytest.raises(GradshardError, match="had no workers for 1 s: start some by `dask worker"),
        dask_client(place, "cpu"),
    ):
        pass
    assert said == [f"no workers at {place.scheduler} yet: start some by `dask worker {place.scheduler}`; waiting 1 s"]


@pytest.mark.parametrize("lacking", ["worker", "scheduler"])
def test_a_cluster_without_gradshard_says_who_lacks_it(start, tmp_path, said, lacking):
    place = scheduler(start, tmp_path, lacking="gradshard" if lacking == "scheduler" else None)
    worker(start, lacking="gradshard" if lacking == "worker" else None)
    said_of_it = rf"the {lacking} at tcp://\S+ cannot import gradshard \(.*gradshard"
    with pytest.raises(GradshardError, match=said_of_it), dask_client(place, "cpu"):
        pass


def test_a_worker_that_lacks_what_its_tasks_need_is_told_before_it_gets_one(start, tmp_path, said):
    place = scheduler(start, tmp_path)
    worker(start, lacking="torch")
    with dask_client(place, "cpu") as client, pytest.raises(GradshardError, match=r"import .*sign_stores.*torch"):
        list(map_tasks(client, compute_shard, [1], what="shard"))


def test_a_cluster_that_lost_all_its_workers_is_given_up(start, tmp_path, said, monkeypatch):
    monkeypatch.setattr(cluster_health, "_TOLD_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(cluster_health, "_NEXT_WORKER_SECONDS", 1)
    monkeypatch.setattr("gradshard.stages.machines.dask_cluster._LOOK_SECONDS", 0.1)
    place = scheduler(start, tmp_path)
    only = worker(start)
    with dask_client(place, "cpu") as client:
        only.kill()
        with pytest.raises(GradshardError, match="shard 1: the cluster is gone"):
            list(map_tasks(client, time.sleep, [1], what="shard"))
    assert said[-1].startswith("no workers are left (")


def test_a_worker_that_has_just_ended_lacks_nothing():
    class Ended:
        def run(self, *arguments, **options):
            return {"tcp://a:1": OSError("Timed out trying to connect to tcp://a:1 after 30 s")}

    cluster_health.check_import(Ended(), "time")
    cluster_health._check_versions(Ended().run())


def test_another_version_of_gradshard_on_a_worker_is_refused():
    with pytest.raises(GradshardError, match=r"the worker at tcp://a:1 has gradshard 0\.0\.0, and this is"):
        cluster_health._check_versions({"the worker at tcp://a:1": "0.0.0"})


def test_workers_that_come_back_in_time_are_waited_for(said):
    absence = cluster_health.Absence()
    looks = [(0, 0), (0, 19), (0, 21), (0, 40), (1, 50), (0, 60), (0, 600), (0, 661)]
    assert [absence.look(workers, now) for workers, now in looks] == [False] * 7 + [True]
    assert len(said) == 2
