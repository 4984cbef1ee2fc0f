"""The GPU's script, rehearsed on the CPU: killed in the middle it goes on, and each part keeps to its time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from benchmarks.gpu import profile
from benchmarks.gpu.device_tests import FILES
from benchmarks.gpu.part import findings
from benchmarks.gpu.profile import NOTES, stage_commands
from gradshard.pipeline.config.profiles import profiles
from tests.helpers.dvc_projects import new_dvc_project

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"


@pytest.fixture
def script(tmp_path):
    """Start the script; what it keeps lies in the folders ``results`` and ``scratch``."""

    def start(*options):
        environment = os.environ | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
        command = [str(SCRIPT), "--scratch", str(tmp_path / "scratch"), *options, str(tmp_path / "results")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def last_line(process):
    said, _ = process.communicate(timeout=600)
    return said.splitlines()[-1]


def wait_for(happened, process):
    for _ in range(3000):
        if happened():
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_without_what_was_done(script, tmp_path):
    notes = tmp_path / "scratch/mnist-rehearsed" / NOTES
    first = script("--rehearse", "--parts", "signs mnist", "--seconds", "3000")
    wait_for(lambda: notes.exists() and "train-static A" in json.loads(notes.read_text())["stages"], first)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 130
    noted = json.loads(notes.read_text())
    signs = (tmp_path / "results/signs.json").read_bytes()
    assert not (tmp_path / "results/mnist.json").exists()
    again = script("--rehearse", "--parts", "signs mnist", "--seconds", "3000")
    assert last_line(again) == "done: signs mnist; not done: nothing"
    assert (tmp_path / "results/signs.json").read_bytes() == signs
    after = json.loads(notes.read_text())
    assert len(after["calls"]) == 2
    assert after["calls"][0] >= noted["stages"]["prepare"]["seconds"]
    assert after["stages"] | noted["stages"] == after["stages"]
    found = json.loads((tmp_path / "results/mnist.json").read_text())
    assert (found["device"], found["rehearsal"]) == ("no GPU", True)
    assert {finding["name"] for finding in found["findings"]} >= {"prepare", "report", "all stages"}
    shutil.unpack_archive(tmp_path / "results/mnist.tar.gz", tmp_path / "kept", filter="data")
    assert (tmp_path / "kept/report/index.html").exists()


def test_where_a_run_is_ended_none_takes_its_place(tmp_path, monkeypatch):
    begun = []

    def ended(folder, *arguments):
        begun.append(arguments)
        raise RuntimeError("train-static A was ended by signal 15")

    monkeypatch.setattr(profile, "run", ended)
    monkeypatch.setattr(profile, "stage_commands", lambda params: [["train-static A", "train-static B"]])
    (tmp_path / "params.yaml").write_text("{}")
    with (
        pytest.raises(click.ClickException, match="was ended by signal 15"),
        findings(tmp_path / "mnist.json", "cpu", small=True) as found,
    ):
        profile._run_all(tmp_path, found, jobs=1)
    assert begun == [("train-static", "A")]
    assert len(json.loads((tmp_path / NOTES).read_text())["calls"]) == 1


@pytest.mark.slow
def test_a_part_that_takes_too_long_leaves_the_next_its_time(script, tmp_path):
    process = script("--rehearse", "--parts", "ratios signs", "--limits", "ratios=1")
    assert last_line(process) == "done: signs; not done: ratios (out of time)"
    assert process.returncode == 1
    process = script("--rehearse", "--parts", "signs ratios", "--seconds", "1")
    assert last_line(process) == "done: signs; not done: ratios (out of time)"


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_finds_nothing(script, tmp_path):
    if "CUDA_VISIBLE_DEVICES" not in os.environ and shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    assert last_line(script("--parts", "signs")) == "done: nothing; not done: signs (failed)"
    said = (tmp_path / "results/log.txt").read_text().splitlines()
    assert said[1] == "Error: device: cuda is not available here: set it to auto or cpu"
    assert len(said) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--parts", "none"], "there is no part none: see --help"),
        (["--wheels", "/nowhere"], "there is no folder /nowhere"),
        (["--seconds", "soon"], "--seconds is soon: give a number of seconds"),
        (["--limits", "signs"], "--limits is signs: give NAME=SECONDS, with spaces between"),
        (["--sooner"], "no option --sooner: see --help"),
    ],
)
def test_a_mistake_is_one_sentence(script, options, sentence):
    process = script(*options)
    assert last_line(process) == f"gpu.sh: {sentence}"
    assert process.returncode == 2


def test_the_tests_of_the_device_are_in_files_of_that_name():
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.device" in path.read_text()]
    assert [path for path in sorted(marked) if path != Path(__file__)] == FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "mnist5k"])
def test_stages_are_those_that_dvc_runs_in_an_order_that_it_may_take(name, tmp_path, digits):
    project = new_dvc_project(tmp_path / "project", digits)
    (project.path / "params.yaml").write_text(profiles()[name])
    ours = [command for stage in stage_commands(YAML(typ="safe").load(profiles()[name])) for command in stage]
    graph = Repo(str(project.path)).index.graph
    commands = {stage: stage.cmd.removeprefix("python -m gradshard ") for stage in graph}
    assert sorted(ours) == sorted(commands.values())
    place = {command: number for number, command in enumerate(ours)}
    for stage, needed in graph.edges:
        assert place[commands[needed]] < place[commands[stage]]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    subprocess.run(["shellcheck", str(SCRIPT)], check=True)
