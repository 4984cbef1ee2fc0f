"""A whole project, small enough to run in seconds: real digits, model D under every name."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from gradshard.stages.cli import main

ROOT = Path(__file__).parents[2]


def tiny_params() -> dict:
    """Return the default profile with model D everywhere, few epochs, and digits from ``digits.npz``."""
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["profile"] = "tiny"
    params["dataset"] = {"name": "npz", "path": "digits.npz"}
    params["training"]["batch"] = 32
    for model in params["static"].values():
        model.update(architecture="D", epochs=2)
    for model in params["robust"].values():
        model.update(architecture="D", epochs=3, snapshots=[1])
    params["blackbox"]["examples"] = 60
    params["blackbox"]["substitute"].update(images=50, rounds=3, epochs=3, sweep=[0.1, 0.5])
    params["blackbox"]["forest"]["sweep"] = [0.2]
    params["blackbox"]["estimation"].update(examples=5)
    params["analysis"]["models"] = ["A", "A_adv", "A_adv@1"]
    params["analysis"]["plane"]["model"] = "A_adv@1"
    evaluation = params["evaluation"]
    evaluation["targets"] = ["A", "B", "A_adv", "A_adv-ens", "A_adv@1", "A_adv-ens@1"]
    evaluation["attacks"]["fgsm"] = list(evaluation["targets"])
    return params


@dataclass(frozen=True)
class Project:
    """A project's folder."""

    path: Path

    def edit(self, change: Callable[[dict], object]) -> None:
        """Change the parameters."""
        params = self.params()
        change(params)
        with (self.path / "params.yaml").open("w") as file:
            YAML().dump(params, file)

    def params(self) -> dict:
        return YAML(typ="safe").load((self.path / "params.yaml").read_text())

    def popen(self, *arguments: str) -> subprocess.Popen:
        """Start a stage as a process of its own."""
        command = [sys.executable, "-m", "gradshard", *arguments]
        return subprocess.Popen(command, cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments: str) -> str:
        """Run a stage as a process of its own; it must succeed."""
        process = self.popen(*arguments)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output

    def copy_to(self, path: Path) -> "Project":
        shutil.copytree(self.path, path)
        return Project(path)


def new_project(path: Path, digits: dict, *, train: int = 600) -> Project:
    """Return a project before its first stage."""
    path.mkdir(parents=True, exist_ok=True)
    (x_train, y_train), (x_test, y_test) = digits["train"], digits["test"]
    arrays = {"x_train": x_train[:train], "y_train": y_train[:train], "x_test": x_test[:120], "y_test": y_test[:120]}
    np.savez(path / "digits.npz", **arrays)
    with (path / "params.yaml").open("w") as file:
        YAML().dump(tiny_params(), file)
    return Project(path)


def call(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process, and return its exit code."""
    patch.setattr(sys, "argv", ["gradshard", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def call_each(project: Project, *commands: tuple[str, ...]) -> None:
    """Run commands in this process, one after another, in the project's folder; each must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        for arguments in commands:
            assert call(patch, *arguments) == 0, arguments


def files(project, *folders):
    return {
        str(path.relative_to(project.path)): path.read_bytes()
        for folder in folders
        for path in (project.path / folder).rglob("*")
        if path.is_file()
    }


def receipts(project: Project, store: str = "A") -> int:
    """Count the shards that have a receipt; a running stage may be removing them."""
    try:
        return len(list(project.path.glob(f".partial/precompute-{store}-*/ledger/*.json")))
    except FileNotFoundError:
        return 0
