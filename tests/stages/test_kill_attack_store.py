"""A store of an attack in two copies, killed for real, damaged and mended: always the bytes of the undisturbed one."""

import os
import random
import shutil
import signal
import time

import pytest

from gradshard import verify
from tests.helpers.projects import files, new_project, receipts

pytestmark = pytest.mark.slow

PGD = {"model": "A", "gradient": "exact", "label": "predicted", "attack": "pgd", "eps": 0.3, "steps": 20, "copies": 2}
ORIGIN = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr")
SHARDS = 19
COPIES = ("signs", "signs-1")


@pytest.fixture(scope="module")
def before(tmp_path_factory, digits):
    """A project that lacks the store alone."""
    project = new_project(tmp_path_factory.mktemp("before") / "project", digits)
    project.edit(lambda params: params["signs"].update(P=PGD))
    project.run("prepare")
    project.run("train-static", "A")
    return project


@pytest.fixture(scope="module")
def undisturbed(before, tmp_path_factory):
    project = before.copy_to(tmp_path_factory.mktemp("undisturbed") / "project")
    project.run("precompute", "P")
    assert len(list(project.path.glob("signs/P.zarr/signs-1/c/*/0/0"))) == SHARDS
    return project


def test_killed_at_several_moments_it_ends_with_the_same_bytes(before, undisturbed, tmp_path):
    project = before.copy_to(tmp_path / "project")
    draws = random.Random(3)
    for done in (0, 1, 7, 14):
        process = project.popen("precompute", "P")
        while receipts(project, "P") < done or not list(project.path.glob(".partial/precompute-P-*")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        time.sleep(draws.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (project.path / "signs/P.zarr").exists()
        assert done <= receipts(project, "P") < SHARDS
    assert "going on: " in project.run("precompute", "P")
    assert files(project, "signs") == files(undisturbed, "signs")


@pytest.mark.parametrize("array", COPIES)
def test_damage_in_either_copy_is_found_and_mended_to_the_same_bytes(undisturbed, tmp_path, gradshard, array):
    project = undisturbed.copy_to(tmp_path / "project")
    changed, lost = (project.path / f"signs/P.zarr/{array}/c/{shard}/0/0" for shard in (2, 11))
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 4
    changed.chmod(0o644)
    changed.write_bytes(content)
    lost.unlink()
    assert gradshard(project, "store", "verify", "signs/P.zarr")[0] == 1
    assert {fault.file for fault in verify("signs/P.zarr")} == {f"{array}/c/2/0/0", f"{array}/c/11/0/0"}
    assert gradshard(project, "store", "repair", "signs/P.zarr", *ORIGIN)[0] == 0
    assert gradshard(project, "store", "verify", "signs/P.zarr")[0] == 0
    shutil.rmtree(project.path / ".partial", ignore_errors=True)
    assert files(project, "signs") == files(undisturbed, "signs")
