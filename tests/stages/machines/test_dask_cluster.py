"""A Dask cluster of separate processes: workers die, the client dies, and the bytes are the same."""

import functools
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http import HTTPStatus

import dask
import pytest
import torch
from distributed import Client

from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.machines.dask_cluster import dask_client, map_tasks
from gradshard.storage.errors import GradshardError
from tests.helpers.projects import files, new_project, receipts

pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, folder, workers):
        self.folder, self.number = folder, itertools.count()
        self.file = folder / "scheduler.json"
        self.processes = [
            self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0")
        ]
        while not self.file.exists() or not self.file.read_text().endswith("}"):
            assert self.processes[0].poll() is None
            time.sleep(0.1)
        self.address = json.loads(self.file.read_text())["address"]
        self.workers = [self.start_worker() for _ in range(workers)]

    def _start(self, module, *options):
        log = (self.folder / f"{module}-{next(self.number)}.log").open("w")
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(self.file), *options]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def start_worker(self):
        worker = self._start("dask_worker", "--no-nanny", "--nthreads", "1", "--no-dashboard")
        self.processes.append(worker)
        return worker

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    started = Cluster(folder, workers=3)
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """A project with its store and evaluation, computed in one process."""
    project = new_project(tmp_path_factory.mktemp("whole") / "project", digits, train=1000)
    project.edit(lambda params: params["static"]["A"].update(architecture="B", epochs=1))
    project.edit(lambda params: params["evaluation"].update(targets=["A"], attacks={"fgsm": ["A"]}))
    project.edit(lambda params: params["evaluation"].update(illustrated=["A"], diagnosed=["A"], holdout="B"))
    project.run("prepare")
    project.run("train-static", "A")
    project.run("train-static", "B")
    before = project.copy_to(project.path.parent / "before")
    project.run("precompute", "A")
    project.run("evaluate")
    return project, before


def test_a_store_comes_out_the_same_while_a_worker_is_killed_every_few_seconds(whole, cluster, tmp_path):
    expected, before = whole
    project = before.copy_to(tmp_path / "project")
    killed, seen, last = 0, 0, -math.inf
    with project.popen("precompute", "A", "--scheduler", cluster.address) as process:
        while process.poll() is None:
            time.sleep(0.02)
            done = receipts(project)
            # Only after progress: whatever the load of this machine, no shard loses four workers.
            if done > seen and time.monotonic() > last + 2:
                os.kill(cluster.workers.pop(0).pid, signal.SIGKILL)
                cluster.workers.append(cluster.start_worker())
                killed, seen, last = killed + 1, done, time.monotonic()
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert killed > 0
    assert "dashboard: http://" in output
    assert files(project, "signs") == files(expected, "signs")


def test_a_client_that_died_comes_back_to_the_shards_that_its_workers_finished(whole, cluster, tmp_path):
    expected, before = whole
    project = before.copy_to(tmp_path / "project")
    arguments = ("precompute", "A", "--scheduler", cluster.address)
    with project.popen(*arguments) as process:
        while receipts(project) < 2:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert "going on: " in project.run(*arguments)
    assert files(project, "signs") == files(expected, "signs")


def test_models_are_evaluated_on_a_cluster_with_the_same_results(whole, cluster, tmp_path):
    expected, before = whole
    project = before.copy_to(tmp_path / "project")
    project.run("evaluate", "--scheduler", cluster.address)
    assert files(project, "evaluation") == files(expected, "evaluation")


def test_an_address_without_a_scheduler_is_one_sentence(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("gradshard.stages.machines.dask_cluster._CONNECT_SECONDS", 1)
    with (
        pytest.raises(GradshardError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "),
        dask_client(ClusterConfig(scheduler="tcp://127.0.0.1:1"), "cpu"),
    ):
        pass


def test_the_dashboard_of_a_local_cluster_is_reachable():
    with dask_client(ClusterConfig(workers=1), "cpu") as client, urllib.request.urlopen(client.dashboard_link) as page:
        assert page.status == HTTPStatus.OK
        assert "Dask" in page.read().decode()


def test_a_cluster_here_watches_itself_less_often_unless_its_user_says_otherwise():
    tick, profile = "distributed.admin.tick.interval", "distributed.worker.profile.interval"
    with dask.config.set({tick: "50ms"}), dask_client(ClusterConfig(workers=1), "cpu") as client:
        assert list(client.run(dask.config.get, tick).values()) == ["50ms"]
        assert list(client.run(dask.config.get, profile).values()) == ["100ms"]


def deadly(item):
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_task_that_kills_its_workers_is_named():
    with dask_client(ClusterConfig(workers=1), "cpu") as client:
        found = []
        with pytest.raises(GradshardError, match="shard 2: 4 workers died while computing it"):
            found += [item for item, _ in map_tasks(client, deadly, [2], what="shard")]
        assert found == []


TOLD = threading.Event()


def quick_but_the_last(seconds, item):
    if item < 5:
        time.sleep(seconds)
    elif TOLD.wait(30):
        time.sleep(0.3)  # to be told of no second time
    return item


@pytest.mark.parametrize(("quick", "look"), [(0.05, 0.02), (0, 0.2)], ids=["others seen", "others done before a look"])
def test_a_straggler_is_told_once_with_its_worker(monkeypatch, quick, look):
    told = []
    TOLD.clear()

    def echo(sentence):
        told.append(sentence)
        TOLD.set()

    monkeypatch.setattr("gradshard.stages.machines.dask_cluster.echo", echo)
    monkeypatch.setattr("gradshard.stages.machines.dask_cluster._LOOK_SECONDS", look)
    monkeypatch.setattr("gradshard.stages.machines.dask_cluster._SLOW_SECONDS", 0.5)
    task = functools.partial(quick_but_the_last, quick)
    with dask_client(ClusterConfig(), "cpu") as client:
        assert sorted(item for item, _ in map_tasks(client, task, range(6), what="shard")) == list(range(6))
    assert len(told) == 1
    assert told[0].startswith("shard 5 has been at ")


def visible(item):
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_every_worker_of_a_machine_with_gpus_sees_one_of_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with dask_client(ClusterConfig(workers=2), "cuda") as client:
        assert isinstance(client, Client)
        client.wait_for_workers(2, timeout=60)
        assert sorted(client.run(visible, 0).values()) == ["0", "1"]
        assert set(client.nthreads().values()) == {1}
