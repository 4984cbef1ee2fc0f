"""The wheel, installed: one name at the top of site-packages, and a whole project beside files of the same names."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.helpers.projects import Project, new_project

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command, cwd=None, env=None):
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment with the wheel in it; the libraries it needs are those of the environment that tests."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    run("git", "clone", "-q", str(ROOT), str(clone))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(clone))
    (wheel,) = folder.glob("gradshard-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel))
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    installed = sorted(path.name for path in site.iterdir())
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv/bin", site, installed


def test_one_name_stands_at_the_top_of_site_packages(environment):
    _, site, installed = environment
    assert [name for name in installed if not name.endswith(".dist-info")] == ["gradshard"]
    files = {path.relative_to(site / "gradshard").as_posix() for path in (site / "gradshard").rglob("*")}
    assert {"py.typed", "__init__.pyi", "stages.yaml", "pipeline/report/page.html", "stages/cli.py"} <= files
    assert {"pipeline/config/profiles/mnist5k.yaml", "stages/project/template/gitignore", "docs/datasets.md"} <= files
    assert not [path for path in (site / "gradshard").rglob("*") if path.is_symlink()]


def test_a_project_runs_beside_files_and_folders_of_the_same_names(environment, tmp_path, digits):
    bin_folder, site, _ = environment
    env = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    env.pop("PYTHONPATH", None)
    run(str(bin_folder / "gradshard"), "init", "x", cwd=tmp_path, env=env)
    project = Project(tmp_path / "x")
    new_project(project.path, digits, train=300)
    for decoy in ("pipeline", "stages"):
        (project.path / decoy).mkdir()
        (project.path / decoy / "__init__.py").write_text("raise ImportError('a decoy')\n")
    (project.path / "storage.py").write_text("raise ImportError('a decoy')\n")
    where = run("python", "-c", "import gradshard.storage as s; print(s.__file__)", cwd=project.path, env=env)
    assert Path(where.strip()).is_relative_to(site)
    run("python", "-m", "dvc", "repro", cwd=project.path, env=env)
    assert (project.path / "report/index.html").exists()
    assert "up to date" in run("python", "-m", "dvc", "status", cwd=project.path, env=env)
