"""``gradshard profile``: one command between profiles, and no edit lost."""

import subprocess
import sys

import pytest

from gradshard.pipeline.config.profiles import profiles


@pytest.fixture
def use(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "gradshard", "profile", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_without_a_name_it_lists_the_profiles_and_marks_the_active_one(use, tmp_path):
    (tmp_path / "params.yaml").write_text(profiles()["mnist"])
    expected = ["  cifar10", "  cifar10-fixed", "  imagenet", "  imagenet-eval", "* mnist", "  mnist5k", "  own"]
    assert use().stdout.splitlines() == expected


def test_with_a_name_it_switches(use, tmp_path):
    assert use("mnist5k").returncode == 0
    assert use("mnist").returncode == 0
    assert (tmp_path / "params.yaml").read_text() == profiles()["mnist"]


def test_edits_are_not_overwritten_unless_forced(use, tmp_path):
    (tmp_path / "params.yaml").write_text("# mine\n")
    assert "it was edited" in use().stdout
    refused = use("mnist")
    assert (refused.returncode, (tmp_path / "params.yaml").read_text()) == (2, "# mine\n")
    assert "holds edits that are in no profile" in refused.stderr
    assert use("mnist", "--force").returncode == 0


def test_an_unknown_profile_is_refused(use):
    refused = use("cifar")
    assert refused.returncode == 2
    assert refused.stderr.startswith("gradshard: no profile cifar: there are cifar10, cifar10-fixed, imagenet")


def test_parameters_of_another_encoding_are_one_sentence(use, tmp_path):
    (tmp_path / "params.yaml").write_bytes(profiles()["mnist"].encode() + b"# r\xe9sum\xe9\n")
    done = use()
    assert (done.returncode, done.stderr) == (2, "gradshard: params.yaml is not UTF-8: convert it first\n")
