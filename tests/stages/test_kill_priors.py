"""Runs that write back to a store of priors, killed between any two of its files: they go on to the same bytes."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.projects import call, files, new_project

pytestmark = pytest.mark.slow

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
FOLDERS = ("models/robust", "models/snapshots", "training")
WORK = ".partial/train-robust-prior-10-*"
# As they come to be: an increment and the checkpoint that names it, after another epoch a whole generation and its own.
MOMENTS = {
    1: ["priors/*.safetensors", "checkpoint.safetensors", "priors/*.new", "priors/*.zarr"],
    2: ["priors/*.safetensors", "priors/*.zarr"],
}


def change(params):
    params["robust"] = {
        "prior": {"architecture": "small_cnn", "epochs": 14, "snapshots": [1], "method": "fgsm_pgi", "reset_epochs": 9}
    }
    params["evaluation"].update(targets=["A"], attacks={}, illustrated=[], diagnosed=[])
    params["analysis"].update(models=["A"])
    params["analysis"]["plane"]["model"] = "A"
    params["blackbox"]["targets"] = ["A"]
    # With rows that no epoch trains on, every second generation is an increment.
    params["adversarial"]["held_back"] = {"rows": 100, "every": 14, "steps": 2}
    params["training"].update(batch=50, precision="fp32", augment={"padding": 2, "flip": True})


def start(project, ranks):
    command = [sys.executable, "-m", "gradshard", "train-robust", "prior"]
    if ranks > 1:
        command[1:2] = [*TORCHRUN, str(ranks), "-m"]
    return subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(project, ranks):
    with start(project, ranks) as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def newer(path, begun):
    """Tell whether a file was written since; the run may move it away meanwhile."""
    try:
        return path.stat().st_mtime_ns > begun
    except FileNotFoundError:
        return False


def kill_when(project, ranks, moment):
    """Kill all processes of a run as soon as it has written a new file of a kind."""
    begun = time.time_ns()
    with start(project, ranks) as process:
        while not any(newer(path, begun) for path in project.path.glob(f"{WORK}/{moment}")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert not list(project.path.glob("models/robust/*"))


@pytest.fixture(scope="module")
def before(tmp_path_factory, digits):
    project = new_project(tmp_path_factory.mktemp("priors") / "project", digits)
    project.edit(change)
    project.run("prepare")
    return project


@pytest.fixture(scope="module")
def undisturbed(before):
    """The files of a run that nobody killed, by the number of its ranks."""

    @functools.cache
    def run(ranks):
        project = before.copy_to(before.path.parent / f"undisturbed-{ranks}")
        finish(project, ranks)
        return files(project, *FOLDERS)

    return run


@pytest.mark.parametrize("ranks", MOMENTS)
def test_a_run_killed_as_it_writes_back_goes_on_to_the_same_bytes(before, undisturbed, tmp_path, ranks):
    project = before.copy_to(tmp_path / "project")
    for moment in MOMENTS[ranks]:
        kill_when(project, ranks, moment)
    assert "going on from step " in finish(project, ranks)
    assert files(project, *FOLDERS) == undisturbed(ranks)


class Died(BaseException):
    """The end of a process, just before it puts something in its place."""


def test_a_run_that_dies_before_each_file_is_put_in_place_goes_on_to_the_same_bytes(
    before, undisturbed, tmp_path, monkeypatch
):
    project = before.copy_to(tmp_path / "project")
    monkeypatch.chdir(project.path)
    for last in range(1, 9):
        with monkeypatch.context() as patch:
            left = iter(range(last, 0, -1))

            def die_at_last(path, target, *, put, left=left):
                # A folder that is being filled is nothing yet.
                filling = any(part.endswith(".new") for part in path.parts[:-1])
                if ".partial" in path.parts and not filling and next(left) == 1:
                    raise Died
                return put(path, target)

            for name in ("replace", "rename"):
                patch.setattr(Path, name, functools.partialmethod(die_at_last, put=getattr(Path, name)))
            with pytest.raises(Died):
                call(patch, "train-robust", "prior")
        assert not list(project.path.glob("models/robust/*"))
    assert call(monkeypatch, "train-robust", "prior") == 0
    assert files(project, *FOLDERS) == undisturbed(1)


def test_what_is_kept_takes_two_bits_a_pixel_and_passes_are_counted(undisturbed):
    found = json.loads(undisturbed(1)["training/prior-10.json"])
    assert found["prior_bytes"] == 600 * 2 * 784 // 8
    assert found["passes"] == {"images": 14 * 500, "forward": 2 * 14 * 500, "backward": 3 * 14 * 500}


def test_a_lost_file_of_the_prior_is_told_in_a_sentence(before, tmp_path):
    project = before.copy_to(tmp_path / "project")
    kill_when(project, 1, "priors/*.zarr")
    for path in project.path.glob(f"{WORK}/priors/*"):
        path.rename(path.with_name(f"moved-{path.name}"))
    with start(project, 1) as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 2
    assert "is missing or damaged: remove " in output
    assert "Traceback" not in output
