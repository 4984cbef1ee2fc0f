"""``gradshard init``: a project anywhere, nothing overwritten, and an upgrade that DVC sees."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradshard
from gradshard.pipeline.config.profiles import profiles
from gradshard.stages.project.new_project import CODE_LINK, project_dvc_text

WRITTEN = [".dvc", ".dvcignore", ".git", ".gitignore", ".gradshard", "README.md", "dvc.yaml", "params.yaml"]


def run(folder, *arguments):
    # The worker of a queue calls `dvc` by its name, whose folder need not be on the path of who runs the tests.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C", "PATH": path}
    )


def gradshard_in(folder, *arguments):
    return run(folder, sys.executable, "-m", "gradshard", *arguments)


@pytest.fixture
def project(tmp_path):
    done = gradshard_in(tmp_path, "init", "digits")
    assert done.returncode == 0, done.stderr
    return tmp_path / "digits"


def test_it_makes_a_project_that_is_a_git_and_a_dvc_repository(project):
    assert sorted(path.name for path in project.iterdir()) == WRITTEN
    assert (project / "params.yaml").read_text() == profiles()["mnist5k"]
    assert len((project / "README.md").read_text().splitlines()) <= 10
    listed = run(project, sys.executable, "-m", "dvc", "stage", "list", "--name-only").stdout.split()
    assert {"prepare", "train-robust@A_adv-ens-10", "report"} <= set(listed)
    untracked = run(project, "git", "status", "--porcelain").stdout
    assert CODE_LINK not in untracked
    assert "params.yaml" in untracked


def test_the_profile_may_be_another(tmp_path):
    assert gradshard_in(tmp_path, "init", "--profile", "mnist").returncode == 0
    assert (tmp_path / "params.yaml").read_text() == profiles()["mnist"]


def test_a_folder_of_a_git_repository_becomes_a_dvc_repository_of_its_own(tmp_path):
    run(tmp_path, "git", "init", "-q")
    assert gradshard_in(tmp_path, "init", "inner").returncode == 0
    assert not (tmp_path / "inner/.git").exists()
    assert (tmp_path / "inner/.dvc").is_dir()


def test_valid_parameters_that_are_there_are_kept(tmp_path):
    (tmp_path / "params.yaml").write_text(profiles()["mnist"] + "# mine\n")
    done = gradshard_in(tmp_path, "init")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "params.yaml").read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("there", "arguments", "sentence"),
    [
        (
            {"dvc.yaml": "stages: {}\n"},
            [],
            "dvc.yaml is there and is not gradshard's: make the project in a new folder",
        ),
        ({"params.yaml": "lr: 3\n"}, [], "and 11 more; it would be kept, so mend it or move it away"),
        (
            {"params.yaml": "a: 1\n"},
            ["--profile", "mnist"],
            "params.yaml is there: move it away, or leave --profile out",
        ),
        ({}, ["--profile", "mnits"], "no profile mnits: there are cifar10, "),
        ({".gradshard": "mine\n"}, [], ".gradshard is in the place of the link to the installed code: move it away"),
    ],
)
def test_what_is_there_is_not_overwritten(tmp_path, there, arguments, sentence):
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    done = gradshard_in(tmp_path, "init", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert {name: (tmp_path / name).read_text() for name in there} == there
    assert "dvc.yaml" in there or not (tmp_path / "dvc.yaml").exists()


def test_ignore_files_that_are_there_get_what_they_lack(tmp_path):
    (tmp_path / ".gitignore").write_text("/data/\n*.log")
    assert gradshard_in(tmp_path, "init").returncode == 0
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:3] == ["/data/", "*.log", "/models/"]
    assert lines.count("/data/") == 1


def test_a_clone_gets_its_link_from_init_and_from_any_stage(project, tmp_path):
    (project / CODE_LINK).unlink()
    assert "a project already" in gradshard_in(project, "init").stdout
    assert (project / CODE_LINK).resolve() == Path(gradshard.__file__).resolve().parent
    (project / CODE_LINK).unlink()
    (project / CODE_LINK).symlink_to(tmp_path / "an-environment-that-is-gone")
    assert gradshard_in(project, "prepare").returncode == 0
    assert (project / CODE_LINK).resolve() == Path(gradshard.__file__).resolve().parent


def test_dvc_tells_what_does_not_follow_from_an_upgraded_method(project, tmp_path):
    installed = tmp_path / "installed"
    shutil.copytree(Path(gradshard.__file__).parent, installed, ignore=shutil.ignore_patterns("__pycache__"))
    (project / CODE_LINK).unlink()
    (project / CODE_LINK).symlink_to(installed)
    dvc = [sys.executable, "-m", "dvc"]
    assert run(project, *dvc, "commit", "-q", "-f", "prepare").returncode != 0, "nothing is made yet"
    made = run(project, *dvc, "repro", "-q", "prepare")
    assert made.returncode == 0, made.stderr
    # The stage itself makes the link lead to what runs; back to the copy that stands for the next version.
    (project / CODE_LINK).unlink()
    (project / CODE_LINK).symlink_to(installed)
    assert "up to date" in run(project, *dvc, "status", "prepare").stdout
    with (installed / "storage/ingest/sources.py").open("a") as file:
        file.write("\n")
    said = run(project, *dvc, "status", "prepare").stdout
    assert ".gradshard/storage/ingest" in said
    assert "storage/formats" not in said


def test_a_project_of_a_version_with_other_stages_is_told(project):
    text = project_dvc_text().replace("stages ", "stages 0", 1).replace("gradshard 0", "gradshard 9", 1)
    (project / "dvc.yaml").write_text(text)
    for command in (["init"], ["prepare"]):
        done = gradshard_in(project, *command)
        assert done.returncode == 2
        assert "was written by gradshard 9." in done.stderr
        assert "move it away, run `gradshard init`, and carry over what you had changed" in done.stderr
        assert done.stderr.count("\n") == 1


def test_stages_of_ones_own_beside_ours_are_fine(project):
    with (project / "dvc.yaml").open("a") as file:
        file.write("# and a stage of mine\n")
    assert gradshard_in(project, "prepare").returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_queued_experiment_runs_where_the_link_to_the_code_is_copied(project):
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["add", "-A"], ["commit", "-q", "-m", "all"]):
        assert run(project, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", *command).returncode == 0
    for entry in ("user.name=a", "user.email=a@example.org"):
        run(project, "git", "config", *entry.split("="))
    queued = run(project, *dvc, "exp", "run", "--queue", "--copy-paths", CODE_LINK, "-S", "attack.steps=5", "prepare")
    assert queued.returncode == 0, queued.stderr
    done = run(project, *dvc, "exp", "run", "--run-all")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(run(project, *dvc, "exp", "show", "--csv").stdout)))
    (found,) = [row for row in rows if row["attack.steps"] == "5"]
    assert found["State"] == "Success"
    assert (project / CODE_LINK).is_symlink()


@pytest.mark.parametrize("there", [b"caf\xe9/\n", b"a\r\nb\r\n", b"no end"])
def test_the_bytes_of_an_ignore_file_stay_as_they_are(tmp_path, there):
    (tmp_path / ".gitignore").write_bytes(there)
    assert gradshard_in(tmp_path, "init").returncode == 0
    assert (tmp_path / ".gitignore").read_bytes().startswith(there)
    assert b"/signs/" in (tmp_path / ".gitignore").read_bytes().splitlines()
