"""Killed for real, at any moment: the same command goes on and ends with the bytes of an undisturbed run."""

import functools
import os
import random
import re
import signal
import time

import pytest

from tests.helpers.projects import files, new_project

pytestmark = pytest.mark.slow


def kill_when(process, condition, *, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """A project with larger work: one store of many shards, one robust model of many epochs."""
    project = new_project(tmp_path_factory.mktemp("undisturbed") / "project", digits, train=2000)
    project.edit(lambda params: params["static"]["A"].update(architecture="B"))
    project.edit(lambda params: params["robust"]["A_adv"].update(epochs=12, snapshots=[1, 6]))
    project.edit(lambda params: params["evaluation"].update(targets=["A"], attacks={}, illustrated=[]))
    for stage in (["prepare"], ["train-static", "A"]):
        project.run(*stage)
    before = project.copy_to(project.path.parent / "before")
    for stage in (["precompute", "A"], ["train-robust", "A_adv"]):
        project.run(*stage)
    return project, before


@pytest.mark.parametrize("workers", [0, 2])
def test_precompute_goes_on_with_the_missing_shards(undisturbed, tmp_path, workers):
    whole, before = undisturbed
    project = before.copy_to(tmp_path / "project")
    arguments = ["precompute", "A", "--workers", str(workers)]
    rng = random.Random(workers)
    finished_before = 0
    for attempt in range(3):
        process = project.popen(*arguments)
        wanted = finished_before + rng.randint(1, 3)
        kill_when(process, lambda w=wanted: len(list(project.path.glob(".partial/precompute-A-*/ledger/*.json"))) >= w)
        receipts = {p: p.stat().st_mtime_ns for p in project.path.glob(".partial/precompute-A-*/ledger/*.json")}
        assert len(receipts) > finished_before, attempt
        assert not (project.path / "signs/A.zarr").exists()
        finished_before = len(receipts)
    output = project.run(*arguments)
    assert f"going on: {finished_before} of " in output
    assert files(project, "signs") == files(whole, "signs")


def test_robust_training_goes_on_from_its_checkpoint(undisturbed, tmp_path):
    whole, before = undisturbed
    project = before.copy_to(tmp_path / "project")

    def saved_since(moment):
        checkpoints = project.path.glob(".partial/train-robust-A_adv-10-*/checkpoint.safetensors")
        return any(checkpoint.stat().st_mtime_ns > moment for checkpoint in checkpoints)

    seen = 0
    for _ in range(3):
        process = project.popen("train-robust", "A_adv")
        kill_when(process, functools.partial(saved_since, time.time_ns()))
        assert not list(project.path.glob("models/robust/*"))
        seen += 1
    output = project.run("train-robust", "A_adv")
    resumed = int(re.search(r"going on from step (\d+) of 756", output)[1])
    assert resumed >= seen * 63
    folders = ("models/robust", "models/snapshots", "training")
    assert files(project, *folders) == files(whole, *folders)


def test_a_stage_that_is_already_running_is_waited_for(undisturbed, tmp_path):
    whole, before = undisturbed
    project = before.copy_to(tmp_path / "project")
    first = project.popen("precompute", "A")
    while not list(project.path.glob(".partial/precompute-A-*/ledger/*.json")):
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    second = project.popen("precompute", "A")
    assert second.stdout is not None
    told = second.stdout.readline()
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    rest, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert told == f"process {first.pid} is already making signs/A.zarr: waiting for it (stop it to take over)\n"
    assert rest == "signs/A.zarr: made by the other process\n"
    assert files(project, "signs") == files(whole, "signs")
