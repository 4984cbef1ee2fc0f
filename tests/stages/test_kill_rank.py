"""One of several processes that train a model is killed for real: the others end, and the same command goes on."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests.helpers.projects import files, new_project

pytestmark = pytest.mark.slow

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
WEIGHTS = "models/robust/A_adv-10.safetensors"
FOLDERS = ("models/robust", "models/snapshots", "training")


def start(project, ranks):
    return subprocess.Popen(
        [*TORCHRUN, str(ranks), "-m", "gradshard", "train-robust", "A_adv"],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(project, ranks):
    with start(project, ranks) as process:
        output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    return output


def ranks_of(process):
    """The processes that train, in the order of their ranks."""
    found = [
        (int(child.environ()["RANK"]), child)
        for child in psutil.Process(process.pid).children()
        if "train-robust" in child.cmdline()
    ]
    return [child for _, child in sorted(found, key=lambda pair: pair[0])]


def kill_after_a_checkpoint(project, rank):
    """Start two ranks, kill one of them once a checkpoint is there, and give what was said."""
    with start(project, 2) as process:
        while not list(project.path.glob(".partial/train-robust-A_adv-10-*/checkpoint.safetensors")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        os.kill(ranks_of(process)[rank].pid, signal.SIGKILL)
        output = process.communicate(timeout=400)[0]
    assert process.returncode != 0
    assert not (project.path / WEIGHTS).exists()
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A project whose robust model two undisturbed ranks trained, and the project before."""
    project = new_project(tmp_path_factory.mktemp("ranks") / "project", digits, train=2000)
    project.edit(lambda params: params["robust"]["A_adv"].update(epochs=12, snapshots=[1]))
    project.edit(lambda params: params["training"].update(precision="fp32"))
    project.run("prepare")
    before = project.copy_to(project.path.parent / "before")
    finish(project, 2)
    return project, before


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_run_goes_on_to_the_same_weights(trained, tmp_path, rank):
    whole, before = trained
    project = before.copy_to(tmp_path / "project")
    said = kill_after_a_checkpoint(project, rank)
    assert "lost another one" in said or "SIGKILL" in said
    assert "going on from step " in finish(project, 2)
    assert files(project, *FOLDERS) == files(whole, *FOLDERS)


def test_a_run_of_two_ranks_goes_on_with_one(trained, tmp_path):
    whole, before = trained
    project = before.copy_to(tmp_path / "project")
    kill_after_a_checkpoint(project, 1)
    resumed = int(re.search(r"going on from step (\d+)", finish(project, 1))[1])
    expected, found = (
        [
            list(map(float, line.split("\t")))
            for line in (one.path / "training/A_adv-10.tsv").read_text().splitlines()[1:]
        ]
        for one in (whole, project)
    )
    assert len(found) == len(expected)
    # The order of sums differs from there on, and hundreds of steps make something of that; the next few do not.
    following = next(number for number, record in enumerate(expected) if record[0] > resumed)
    assert np.allclose(found[: following + 1], expected[: following + 1], rtol=0.01)
