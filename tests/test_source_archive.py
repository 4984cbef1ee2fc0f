"""The pipeline in a source archive, which is no git repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_dvc_works_without_git_after_the_command_that_the_readme_gives(tmp_path):
    (tmp_path / ".dvc").mkdir()
    for name in (".dvc/config", "dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(*command):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert "is not a git repository" in run("dvc", "stage", "list").stderr
    (command,) = re.findall(r"`(dvc config [^`]+)`", (ROOT / "README.md").read_text())
    assert run(*command.split()).returncode == 0
    listed = run("dvc", "stage", "list")
    assert listed.returncode == 0, listed.stderr
    assert "prepare" in listed.stdout
