"""A whole project under the real DVC."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers.projects import ROOT, Project, new_project


class DvcProject(Project):
    """A copy of the repository with tiny parameters, like a user's own clone."""

    def dvc(self, command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=self.path, env=environment(), capture_output=True, text=True, timeout=2400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def changed(self) -> set[str]:
        """Return the stages that `dvc status` names."""
        return set(re.findall(r"^(\S+):$", self.dvc("dvc status"), flags=re.MULTILINE))

    def repro(self) -> list[str]:
        """Run `dvc repro`, and return the stages that it ran."""
        return re.findall(r"^Running stage '(.*)'", self.dvc("dvc repro"), flags=re.MULTILINE)


def environment():
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def new_dvc_project(path: Path, digits: dict) -> DvcProject:
    """Return a project before its first stage, with a copy of the code, as in a user's own clone."""
    for name in ("pipeline", "stages", "storage"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "gradshard", path / "gradshard", symlinks=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    new_project(path, digits, train=300)
    subprocess.run("git init -q", shell=True, cwd=path, check=True)
    return DvcProject(path)
