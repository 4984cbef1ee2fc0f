"""One command uses all devices of a machine; what dies ends all with a sentence, and the same command goes on."""

import os
import signal
import time

import numpy as np
import psutil
import pytest
import torch

from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.machines.devices import device_count, on_all_devices
from gradshard.storage.errors import GradshardError
from tests.helpers.projects import Project, files, new_project

CPU = torch.device("cpu")
CHECKPOINT = ".partial/train-robust-A_adv-10-*/checkpoint.safetensors"
TRAINED = ("models/robust", "models/snapshots", "training")


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("GRADSHARD_DEVICES", "2")


@pytest.mark.parametrize(("text", "devices"), [(None, 1), ("1", 1), ("3", 3), ("auto", 1)])
def test_devices_of_a_cpu_are_as_many_as_the_machine_says(monkeypatch, text, devices):
    monkeypatch.delenv("GRADSHARD_DEVICES", raising=False)
    if text is not None:
        monkeypatch.setenv("GRADSHARD_DEVICES", text)
    assert device_count(CPU) == devices
    assert on_all_devices(ClusterConfig(), CPU) == ClusterConfig(workers=0 if devices == 1 else devices)


@pytest.mark.parametrize("text", ["0", "-1", "many", ""])
def test_a_number_of_devices_that_is_none_is_told(monkeypatch, text):
    monkeypatch.setenv("GRADSHARD_DEVICES", text)
    with pytest.raises(GradshardError, match=f"GRADSHARD_DEVICES is {text}: set it to a number"):
        device_count(CPU)


def test_gpus_are_counted_and_no_more_are_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("GRADSHARD_DEVICES", "auto")
    assert device_count(torch.device("cuda")) == 4
    monkeypatch.setenv("GRADSHARD_DEVICES", "8")
    with pytest.raises(GradshardError, match="there are 4 GPUs here"):
        device_count(torch.device("cuda"))


def test_options_that_say_where_to_compute_come_first(two):
    for cluster in (ClusterConfig(workers=5), ClusterConfig(scheduler="tcp://10.0.0.1:8786")):
        assert on_all_devices(cluster, CPU) == cluster


@pytest.fixture(scope="module")
def before(tmp_path_factory, digits) -> Project:
    """A project with a dataset of several blocks of test images."""
    project = new_project(tmp_path_factory.mktemp("devices") / "project", digits, train=1000)
    (x_train, y_train), (x_test, y_test) = digits["train"], digits["test"]
    arrays = {"x_train": x_train[:1000], "y_train": y_train[:1000], "x_test": x_test[:700], "y_test": y_test[:700]}
    np.savez(project.path / "digits.npz", **arrays)
    project.edit(lambda params: params["robust"]["A_adv"].update(epochs=8, snapshots=[1]))
    project.edit(lambda params: params["training"].update(precision="fp32"))
    project.edit(lambda params: params["evaluation"].update(targets=["A"], attacks={"ifgsm": ["B"]}, illustrated=[]))
    project.edit(lambda params: params["evaluation"].update(diagnosed=[]))
    project.run("prepare")
    return project


def wait_for(project: Project, process, pattern: str) -> None:
    deadline = time.monotonic() + 200
    while not list(project.path.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ranks_of(process) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return sorted((child for child in children if "RANK" in child.environ()), key=lambda child: child.environ()["RANK"])


@pytest.fixture(scope="module")
def trained(before, tmp_path_factory) -> Project:
    """The project after two undisturbed ranks trained."""
    whole = before.copy_to(tmp_path_factory.mktemp("trained") / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADSHARD_DEVICES", "2")
        said = whole.run("train-robust", "A_adv")
    assert said.count("8 epochs, clean loss") == 1
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_training_with_a_sentence_and_the_same_command_goes_on(
    before, trained, tmp_path, two, rank
):
    project = before.copy_to(tmp_path / "killed")
    with project.popen("train-robust", "A_adv") as process:
        wait_for(project, process, CHECKPOINT)
        os.kill(ranks_of(process)[rank].pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    sentences = [line for line in output.splitlines() if line.startswith("gradshard: ")]
    assert len(sentences) == 1, output
    assert sentences[0].startswith(f"gradshard: rank {rank} of 2 was killed (SIGKILL")
    assert "run the same command again" in sentences[0]
    assert "Traceback" not in output
    assert not (project.path / "models/robust/A_adv-10.safetensors").exists()

    assert "going on from step " in project.run("train-robust", "A_adv")
    assert files(project, *TRAINED) == files(trained, *TRAINED)


@pytest.mark.slow
def test_a_stage_that_is_killed_takes_its_ranks_along_and_the_same_command_goes_on(before, trained, tmp_path, two):
    project = before.copy_to(tmp_path / "killed")
    with project.popen("train-robust", "A_adv") as process:
        wait_for(project, process, CHECKPOINT)
        ranks = ranks_of(process)
        assert len(ranks) == 2
        process.kill()
        _, left = psutil.wait_procs(ranks, timeout=10)
        assert left == []
    assert not (project.path / "models/robust/A_adv-10.safetensors").exists()

    assert "going on from step " in project.run("train-robust", "A_adv")
    assert files(project, *TRAINED) == files(trained, *TRAINED)


@pytest.mark.slow
def test_what_every_rank_finds_wrong_is_told_once(before, tmp_path, two):
    project = before.copy_to(tmp_path / "project")
    project.edit(lambda params: params["training"].update(batch=999))
    with project.popen("train-robust", "A_adv") as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert output.splitlines()[-1].startswith("gradshard: 2 ranks cannot share a batch of 1 rows")
    assert output.count("cannot share") == 1


@pytest.mark.slow
def test_evaluation_by_workers_goes_on_after_a_kill_to_the_bytes_of_one_process(before, tmp_path, monkeypatch):
    whole = before.copy_to(tmp_path / "whole")
    for model in ("A", "B"):
        whole.run("train-static", model)
    project = whole.copy_to(tmp_path / "killed")
    whole.run("evaluate")
    monkeypatch.setenv("GRADSHARD_DEVICES", "2")
    with project.popen("evaluate") as process:
        wait_for(project, process, ".partial/evaluate-10-*/all-*.npy")
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, left = psutil.wait_procs(workers, timeout=60)
    assert left == []
    assert "2 workers" in project.run("evaluate")
    assert files(project, "evaluation") == files(whole, "evaluation")
