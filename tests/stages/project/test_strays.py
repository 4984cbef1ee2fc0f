"""Under DVC, what of the shared folders is moved out of the way, and what stays."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params
from gradshard.stages.project.strays import set_strays_aside
from tests.helpers.projects import call

STATIC = Path("models/static")


@pytest.fixture
def under_dvc(tmp_path, monkeypatch):
    """Set strays aside, in an empty folder, of parameters whose model A has the given weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "digests")
    monkeypatch.setenv("HOME", str(tmp_path))
    STATIC.mkdir(parents=True)

    def run(weights="random"):
        params = YAML(typ="safe", pure=True).load(profiles()["mnist5k"])
        params["static"]["A"].update(epochs=0, weights=str(weights))
        set_strays_aside(check_params(params, where="params.yaml"))

    return run


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


@pytest.mark.parametrize("named", ["models/static/own.pth", "{}/models/static/own.pth", "~/models/static/own.pth"])
def test_weights_that_the_parameters_name_in_whatever_way_stay(under_dvc, tmp_path, named):
    own, stray = write(STATIC / "own.pth"), write(STATIC / "stray.pth")
    under_dvc(named.format(tmp_path))
    assert own.exists()
    assert not stray.exists()
    assert (Path("set-aside") / stray).read_text() == "stray.pth"


def test_a_folder_with_weights_that_the_parameters_name_stays(under_dvc):
    own, other = write(STATIC / "ckpt/deep/own.pth"), write(STATIC / "other/deep/own.pth")
    under_dvc(own)
    assert own.exists()
    assert not other.exists()


def test_links_to_weights_that_the_parameters_name_stay_wherever_they_lead(under_dvc, tmp_path):
    real = write(tmp_path / "elsewhere/real.pth")
    (STATIC / "second").symlink_to(real)
    (STATIC / "first.pth").symlink_to("second")
    (STATIC / "ckpt").symlink_to(tmp_path / "elsewhere")
    for named in (STATIC / "first.pth", STATIC / "ckpt/real.pth"):
        under_dvc(named)
        assert {path.name for path in STATIC.iterdir()} == {"second", "first.pth", "ckpt"}


def test_relative_links_that_are_moved_lead_where_they_did(under_dvc):
    write(Path("elsewhere/real.pth"))
    inside = write(STATIC / "folder/inside.pth")
    (STATIC / "link.pth").symlink_to("../../elsewhere/real.pth")
    (STATIC / "broken.pth").symlink_to("nowhere.pth")
    (STATIC / "again.pth").symlink_to("folder/inside.pth")
    (STATIC / "circle").symlink_to("circle")
    (inside.parent / "outside.pth").symlink_to("../../../elsewhere/real.pth")
    (inside.parent / "near.pth").symlink_to("inside.pth")
    under_dvc()
    aside = "set-aside" / STATIC
    assert not list(STATIC.iterdir())
    for name in ("link.pth", "folder/outside.pth"):
        assert (aside / name).is_symlink()
        assert (aside / name).samefile("elsewhere/real.pth")
    assert (aside / "again.pth").samefile(aside / "folder/inside.pth")
    assert (aside / "folder/near.pth").readlink() == Path("inside.pth")
    assert (aside / "broken.pth").resolve() == (STATIC / "nowhere.pth").resolve()


def test_what_was_set_aside_before_gives_way(under_dvc):
    for kind in ("old", "new"):
        write(STATIC / "folder" / kind)
        under_dvc()
    assert [path.name for path in ("set-aside" / STATIC / "folder").iterdir()] == ["new"]


def test_a_command_with_the_parameters_of_another_run_moves_nothing_of_this_one(under_dvc, tmp_path, monkeypatch):
    kept = write(tmp_path / "evaluation/77/matrix.parquet")
    other = tmp_path / "other"
    other.mkdir()
    for folder in (tmp_path, other):
        (folder / "params.yaml").write_text(profiles()["mnist5k"])
    for place, stays in (("other/params.yaml", True), ("params.yaml", False)):
        # No such matrix: only the parameters are read.
        assert call(monkeypatch, "table", "missing.parquet", "--params", place) == 2
        assert kept.exists() == stays
