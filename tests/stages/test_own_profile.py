"""The profile `own`: a folder with one archive of arrays becomes a report, by the profile as it stands."""

import json

import numpy as np
import pytest

from tests.helpers.projects import Project, call

STAGES = [
    ("prepare",),
    *(("train-static", name) for name in ("ResNet", "CNN", "VGG")),
    *(("precompute", name) for name in ("ResNet", "CNN")),
    ("train-robust", "ResNet_adv-ens"),
    ("evaluate",),
    ("analyze",),
    ("blackbox",),
    ("report",),
]


@pytest.fixture
def own(tmp_path, monkeypatch, digits):
    """A project of the profile, digits in colour in its archive, and one epoch for each model."""
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "init", "--profile", "own") == 0
    (x_train, y_train), (x_test, y_test) = (
        (np.repeat(images[:150], 3, axis=1), labels[:150]) for images, labels in (digits["train"], digits["test"])
    )
    np.savez("images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    project = Project(tmp_path)

    def shorten(params):
        for model in (*params["static"].values(), *params["robust"].values()):
            model["epochs"] = 1

    project.edit(shorten)
    return project


@pytest.mark.slow
def test_one_archive_of_images_becomes_a_report(own, monkeypatch):
    for stage in STAGES:
        assert call(monkeypatch, *stage) == 0, stage
    assert "ResNet_adv-ens" in (own.path / "report/index.html").read_text()
    metrics = json.loads((own.path / "evaluation/10/metrics.json").read_text())
    assert list(metrics) == ["ResNet_adv-ens"]


def test_who_begins_is_told_what_to_put_where(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "init", "--profile", "own", "mine") == 0
    said = capsys.readouterr().out
    assert "put images.npz there, as `gradshard docs datasets` has it, then run it with `cd mine && dvc repro`" in said
    assert call(monkeypatch, "init", "digits") == 0
    assert "put " not in capsys.readouterr().out
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/images.npz").touch()
    for name, there in (("images", False), ("none", True)):
        folder = tmp_path / name
        folder.mkdir()
        text = (tmp_path / "mine/params.yaml").read_text()
        (folder / "params.yaml").write_text(text.replace("path: images.npz", f"path: ~/{name}.npz"))
        assert call(monkeypatch, "init", name) == 0
        assert ("put ~/" in capsys.readouterr().out) == there


def test_without_the_archive_it_is_told_where_it_belongs(own, gradshard):
    (own.path / "images.npz").unlink()
    code, said = gradshard(own, "prepare")
    assert (code, said.count("\n")) == (2, 1)
    assert "images.npz" in said
