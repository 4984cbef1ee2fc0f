"""Killed twenty times, client or worker, at any moment: what was finished stays, and the bytes come out the same."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gradshard.storage.formats.sign_receipts import Ledger
from tests.helpers.projects import Project, files, new_project, receipts

pytestmark = pytest.mark.slow

KILLS = 20
ARGUMENTS = ("precompute", "A", "--workers", "2")

Stamps = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits) -> tuple[Project, Project, float]:
    """The project with its store, the project before, and how long computing the store took."""
    project = new_project(tmp_path_factory.mktemp("undisturbed") / "project", digits, train=1000)
    project.edit(lambda params: params["static"]["A"].update(architecture="B", epochs=1))
    project.run("prepare")
    project.run("train-static", "A")
    before = project.copy_to(project.path.parent / "before")
    start = time.monotonic()
    project.run(*ARGUMENTS)
    return project, before, time.monotonic() - start


def stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def finished(project: Project) -> Stamps:
    """The files of every shard that has a receipt, and the receipts: each with the time and number of its inode."""
    stamps: Stamps = {}
    for folder in project.path.glob(".partial/precompute-A-*"):
        if not folder.is_dir():
            continue
        for receipt in Ledger(folder / "ledger").done(folder / "store").values():
            path = folder / "ledger" / f"{receipt.shard:08d}.json"
            stamps[path.name] = stamp(path)
            stamps.update({name: stamp(folder / "store" / name) for name in receipt.files})
    return stamps


def check_kept(before: Stamps, after: Stamps) -> None:
    assert before.items() <= after.items(), "a finished shard was computed again"


def check_published(project: Project, whole: Project, kept: Stamps) -> None:
    """The store has the right bytes, and the files that were finished before are in it; receipts are no more."""
    kept = {name: found for name, found in kept.items() if not name.endswith(".json")}
    check_kept(kept, {name: stamp(project.path / "signs/A.zarr" / name) for name in kept})
    assert files(project, "signs") == files(whole, "signs")


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a stage; none once it has ended."""
    found: list[psutil.Process] = []
    if process.poll() is not None:
        return found
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait(process: subprocess.Popen, seconds: float) -> bool:
    """Whether it ended within so many seconds."""
    try:
        process.communicate(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(process: subprocess.Popen) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_twenty_kills_at_random_moments_lose_no_finished_shard_and_change_no_byte(undisturbed, tmp_path):
    whole, before, duration = undisturbed
    project = before.copy_to(tmp_path / "project")
    rng = random.Random(20)
    kills = worker_kills = kept_most = 0
    kept: Stamps = {}
    for turn in itertools.count():
        if kills >= KILLS:
            break
        before_start = receipts(project)
        with project.popen(*ARGUMENTS) as process:
            moment = rng.uniform(0.2, duration)
            if turn % 3 == 0:
                # While it computes, whatever the load of this machine: first a worker, then the client.
                while process.poll() is None and receipts(project) <= before_start:
                    time.sleep(0.02)
                workers = workers_of(process)
                if workers:
                    rng.choice(workers).kill()
                    kills, worker_kills = kills + 1, worker_kills + 1
                moment *= rng.random() / 2
            if wait(process, moment):
                assert process.returncode == 0
            else:
                kill(process)
                kills += 1
        if (project.path / "signs/A.zarr").exists():
            # Whole, even if the kill came after the store was published.
            check_published(project, whole, kept)
            shutil.rmtree(project.path / "signs")
            shutil.rmtree(project.path / ".partial")
            kept = {}
        else:
            now = finished(project)
            check_kept(kept, now)
            kept, kept_most = now, max(kept_most, len(now))
    project.run(*ARGUMENTS)
    check_published(project, whole, kept)
    # The kills met shards that were finished, and workers at work.
    assert kept_most > 0
    assert worker_kills > 2


def test_shards_that_were_finished_on_a_worker_that_dies_are_not_computed_again(undisturbed, tmp_path):
    whole, before, _ = undisturbed
    project = before.copy_to(tmp_path / "project")
    with project.popen(*ARGUMENTS) as process:
        while len(kept := finished(project)) < 3 * 6:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        for worker in workers_of(process):
            worker.kill()
        assert wait(process, 200)
        assert process.returncode == 0
    check_published(project, whole, kept)


_STARTING = """
from gradshard.stages.cli import main
from gradshard.stages.machines import dask_cluster

start = dask_cluster._start_cluster
def told(*arguments):
    print("starting workers")
    return start(*arguments)
dask_cluster._start_cluster = told
main()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_while_shards_are_computed_is_one_sentence_and_keeps_them(undisturbed, tmp_path, workers):
    whole, before, _ = undisturbed
    project, arguments = before.copy_to(tmp_path / "project"), ("precompute", "A", "--workers", str(workers))
    # A shell that starts the tests in the background has it ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with project.popen(*arguments) as process:
        while len(kept := finished(project)) < 2 * 6:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "gradshard: interrupted; run the same command again to go on from there"
    project.run(*arguments)
    check_published(project, whole, kept)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
def test_ctrl_c_while_workers_start_is_one_sentence(undisturbed, tmp_path, seconds):
    _, before, _ = undisturbed
    project = before.copy_to(tmp_path / "project")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-u", "-c", _STARTING, "precompute", "A", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        while "starting workers" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "gradshard: interrupted; run the same command again to go on from there"
