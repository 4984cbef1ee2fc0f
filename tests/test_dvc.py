"""The pipeline through the real DVC: what runs again after which change, and that a killed run goes on."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.projects import Project, new_project

ROOT = Path(__file__).parents[1]
STAGES = {
    "prepare": "prepare",
    "train-static": "train_static",
    "precompute": "precompute",
    "train-robust": "train_robust",
    "train-robust-self": "train_robust",
    "evaluate": "evaluate",
    "report": "report",
}
# They name, show or check, but no output follows from them.
WITHOUT_EFFECT = {
    "pipeline/params.py",
    "pipeline/vocabulary.py",
    "stages/console.py",
    "stages/options.py",
    "stages/paths.py",
    "storage/datasets/download.py",
    "storage/errors.py",
    "storage/partial.py",
}


def definitions():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def closure(path):
    """A module and all modules of the project that it imports, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in ast.walk(ast.parse((ROOT / current).read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            paths = [f"{name.replace('.', '/')}.py" for name in names]
            waiting += [
                p for p in paths if p.split("/")[0] in ("pipeline", "stages", "storage") and (ROOT / p).exists()
            ]
    return seen


@pytest.mark.parametrize(("name", "module"), STAGES.items())
def test_a_stage_depends_on_the_code_that_its_outputs_follow_from(name, module):
    listed = {dep for dep in definitions()[name]["deps"] if dep.endswith(".py")}
    assert listed == closure(f"stages/{module}.py") - WITHOUT_EFFECT


def test_every_stage_says_what_it_does_and_runs_a_command_of_ours():
    assert set(definitions()) == set(STAGES)
    for name, stage in definitions().items():
        assert stage["desc"]
        assert stage["cmd"].startswith(f"python -m stages {name.removesuffix('-self')}")


class DvcProject(Project):
    """A copy of the repository with tiny parameters, as someone's clone of their own."""

    def dvc(self, command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=self.path, env=environment(), capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self) -> list[str]:
        """Run `dvc repro` and give the stages that it ran."""
        return re.findall(r"^Running stage '(.*)'", self.dvc("dvc repro"), flags=re.MULTILINE)


def environment():
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("clone") / "project"
    for name in ("pipeline", "stages", "storage"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    new_project(folder, digits, train=300)
    project = DvcProject(folder)
    subprocess.run("git init -q", shell=True, cwd=folder, check=True)
    project.dvc("dvc repro")
    return project


pytestmark = pytest.mark.slow


def test_everything_runs_once_and_nothing_twice(project):
    assert project.repro() == []
    assert "Data and pipelines are up to date." in project.dvc("dvc repro")
    for output in ("evaluation/matrix.parquet", "report/index.html", "models/snapshots/A_adv/A_adv@1.safetensors"):
        assert (project.path / output).exists()


@pytest.fixture
def edit(project):
    """Change the parameters for one test; afterwards the outputs of before come out of DVC's cache."""
    before = project.params()
    yield project.edit
    project.edit(lambda params: params.update(before))
    assert project.repro() == []


def test_a_new_epsilon_reruns_robust_training_and_what_follows(project, edit):
    edit(lambda params: params["attack"].update(eps=0.25))
    assert project.repro() == ["train-robust-self@A_adv", "train-robust@A_adv-ens", "evaluate", "report"]


def test_more_epochs_for_one_model_rerun_it_its_store_and_what_follows(project, edit):
    edit(lambda params: params["static"]["A"].update(epochs=3))
    assert project.repro() == ["train-static@A", "precompute@A", "train-robust@A_adv-ens", "evaluate", "report"]


def test_the_device_reruns_nothing(project, edit):
    edit(lambda params: params.update(device="cpu"))
    assert project.repro() == []


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("dvc stage list", "Store the signed gradients of A over the full training set"),
        ("dvc metrics show", "fgsm_B"),
        ("dvc plots show", "dvc_plots/index.html"),
        ("dvc repro --dry", "up to date"),
        ("dvc repro precompute@A", "up to date"),
        ("dvc repro -s evaluate", "up to date"),
        ("git status --porcelain", "dvc.lock"),
    ],
)
def test_the_commands_of_the_docs_show_what_they_promise(project, command, shows):
    assert shows in project.dvc(command)


def test_outputs_are_ignored_by_git(project):
    status = project.dvc("git status --porcelain --untracked-files=all")
    for folder in ("data", "models", "signs", "training", "evaluation", "report", ".partial", "dvc_plots"):
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
    deadline = time.monotonic() + 60
    while len(list(project.path.glob(".partial/precompute-A-*/ledger/*.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.path / "signs/A.zarr").exists()
    output = project.dvc("dvc repro -s precompute@A")
    assert "going on: " in output
    assert store() == published
