"""Colour images of 32 x 32 pixels from a folder, through every stage."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.sign_reader import open_store
from tests.helpers.imagefolders import write_folder
from tests.helpers.projects import call, new_project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def coloured_project(tmp_path_factory, digits):
    """Every stage ran, models A and D among them."""
    project = new_project(tmp_path_factory.mktemp("colour") / "project", digits)
    write_folder(project.path / "images", digits, train=120, test=70)

    def change(params: dict) -> None:
        params["dataset"] = {"name": "imagefolder", "path": "images", "size": 32}
        params["static"]["A"].update(architecture="A", epochs=1)
        # The least of everything: what is tested is that three channels pass through all of it.
        models = ["A", "A_adv-ens"]
        params["evaluation"].update(
            targets=models, attacks={"fgsm": ["A", "B"]}, illustrated=models, diagnosed=["A"], sweep=[0, 0.3, 1]
        )
        params["attack"].update(pgd_steps=3, steps=2)
        params["analysis"].update(models=models, examples=10, plane={"model": "A", "source": "B", "points": 1})
        params["blackbox"].update(targets=["A_adv-ens"], examples=20)
        params["blackbox"]["estimation"].update(examples=3, groups=[98])

    project.edit(change)
    project.edit(lambda params: params["robust"].pop("A_adv"))
    stages = ["prepare", *(f"train-static {m}" for m in "ABCD"), *(f"precompute {m}" for m in "ACD")]
    stages += ["train-robust A_adv-ens", "evaluate", "analyze", "blackbox", "report"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        for stage in stages:
            assert call(patch, *stage.split()) == 0, stage
    return project


def test_the_matrix_holds_every_target(coloured_project):
    rows = pq.read_table(coloured_project.path / "evaluation/10/matrix.parquet").to_pylist()
    assert {row["target"] for row in rows} == set(coloured_project.params()["evaluation"]["targets"])
    assert {row["n"] for row in rows} == {70}


def test_the_stores_hold_a_sign_for_each_pixel_of_each_channel(coloured_project):
    split = open_dataset(coloured_project.path / "data/imagefolder.zarr").train
    for name in "ACD":
        store = open_store(coloured_project.path / f"signs/{name}.zarr")
        store.check_made_for(split)
        assert store.manifest.dataset.sample_shape == (3, 32, 32)
        assert store.load().shape == (120, 2, 3 * 32 * 32 // 8)


def test_the_report_shows_colours(coloured_project):
    with np.load(coloured_project.path / "evaluation/10/images.npz") as archive:
        assert archive["images"].shape[1:] == (3, 32, 32)
        assert archive["signs A"].shape == archive["images"].shape
        coloured = (archive["images"].max(1) - archive["images"].min(1)).max((1, 2))
    assert (coloured > 0.1).mean() > 0.7
    page = (coloured_project.path / "report/index.html").read_text()
    assert len(re.findall("data:image/png;base64", page)) >= 5 * len(coloured)
