"""The examples of a cell, as somebody reads them who has plain torch and the images, and nothing of ours."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gradshard.storage.formats import results
from tests.helpers.projects import Project
from tests.helpers.refusals import refused

EPSILON = 0.3


def errors_of(project: Project, name: str, examples: torch.Tensor, labels: torch.Tensor) -> int:
    """Count the errors of a model of architecture D, written down here once more."""
    weights = load_file(project.path / f"models/robust/{name}.safetensors")
    values = examples.flatten(1)
    for layer in range(1, 6):
        values = nn.functional.linear(values, weights[f"fc{layer}.weight"], weights[f"fc{layer}.bias"])
        values = values.relu() if layer < 5 else values
    return int((values.argmax(1) != labels).sum())


def row_of(project: Project, **wanted: object) -> dict:
    (row,) = [
        row
        for row in results.read_matrix(project.path / "evaluation/10/matrix.parquet")
        if wanted.items() <= row.items()
    ]
    return row


@pytest.fixture
def raw(finished_project: Project) -> tuple[torch.Tensor, torch.Tensor]:
    """The test images in [0, 1] and their labels, from the raw data."""
    with np.load(finished_project.path / "digits.npz") as archive:
        return torch.from_numpy(archive["x_test"]).float() / 255, torch.from_numpy(archive["y_test"]).long()


@pytest.mark.parametrize(("source", "attack"), [("B", "fgsm"), ("A_adv", "rand_fgsm"), ("B", "ifgsm")])
def test_an_exported_cell_counted_by_others_errs_as_the_matrix_says(gradshard, copied_project, raw, source, attack):
    images, labels = raw
    code, said = gradshard(copied_project, "export-examples", f"A_adv/{source}/{attack}", "out/cell.pt")
    assert code == 0, said
    examples = torch.load(copied_project.path / "out/cell.pt", weights_only=True)
    assert (examples.dtype, examples.shape) == (torch.float32, images.shape)
    row = row_of(copied_project, target="A_adv", source=source, attack=attack)
    assert errors_of(copied_project, "A_adv-10", examples, labels) == row["errors"] > 0
    # Whether in float32 or in float64, and against a budget that float32 rounds up.
    assert float((examples - images).abs().max()) <= EPSILON
    furthest = float((examples.double() - images.double()).abs().max())
    assert furthest <= EPSILON
    assert (examples.min(), examples.max()) == (0, 1)
    record = json.loads((copied_project.path / "out/cell.json").read_text())
    assert (record["errors"], record["error_rate"]) == (row["errors"], row["error_rate"])
    assert (record["eps"], record["furthest"]) == (EPSILON, furthest)
    assert record["sha256"] == hashlib.sha256((copied_project.path / "out/cell.pt").read_bytes()).hexdigest()
    assert set(record["digests"]["models"]) == ({"A_adv-10", source} if source == "B" else {"A_adv-10"})


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_an_export_is_the_same_bytes_under_any_name_and_by_any_number_of_workers(gradshard, copied_project, workers):
    assert gradshard(copied_project, "export-examples", "A/B/fgsm", "one.pt")[0] == 0
    assert gradshard(copied_project, "export-examples", "A/B/fgsm", "two.pt", "--workers", workers)[0] == 0
    for suffix in (".pt", ".json"):
        one, two = ((copied_project.path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two


def test_of_a_sample_the_export_says_which_test_images_it_has(gradshard, copied_project, raw):
    copied_project.edit(lambda params: params["evaluation"].update(sample=40))
    assert gradshard(copied_project, "evaluate")[0] == 0
    assert gradshard(copied_project, "export-examples", "A_adv/B/fgsm", "cell.pt")[0] == 0
    examples = torch.load(copied_project.path / "cell.pt", weights_only=True)
    rows = json.loads((copied_project.path / "cell.json").read_text())["rows"]
    images, labels = (part[rows] for part in raw)
    assert float((examples - images).abs().max()) <= EPSILON
    row = row_of(copied_project, target="A_adv", source="B", attack="fgsm")
    assert (errors_of(copied_project, "A_adv-10", examples, labels), len(rows)) == (row["errors"], row["n"])


@pytest.mark.parametrize(
    ("cell", "file", "saying"),
    [
        ("A_adv/B", "cell.pt", "CELL must be TARGET/SOURCE/ATTACK, such as A_adv/B/fgsm"),
        ("A_adv/B/fgsm", "cell.npz", "FILE must end in .pt"),
        ("A_adv/B/pgd", "cell.pt", "the parameters ask for no cell A_adv/B/pgd"),
        ("A_adv/Z/fgsm", "cell.pt", "name A_adv in evaluation.targets, and Z in evaluation.attacks.fgsm"),
    ],
)
def test_what_is_no_cell_is_told_and_nothing_is_written(gradshard, copied_project, cell, file, saying):
    code, said = gradshard(copied_project, "export-examples", cell, file)
    assert code == 2
    assert saying in said
    assert not (copied_project.path / file).exists()


def test_a_file_of_somebody_else_beside_the_tensor_is_not_overwritten(gradshard, copied_project):
    (copied_project.path / "cell.json").write_text("mine")
    saying = "would be overwritten: move it away"
    refused(gradshard, copied_project, "export-examples", "A_adv/B/fgsm", "cell.pt", saying=saying)
    assert (copied_project.path / "cell.json").read_text() == "mine"


def test_a_cell_that_was_measured_at_another_epsilon_is_not_exported(gradshard, copied_project):
    copied_project.edit(lambda params: params["attack"].update(eps=0.25))
    saying = "evaluation/10/matrix.parquet has no cell A_adv/B/fgsm of these parameters: run `gradshard evaluate"
    refused(gradshard, copied_project, "export-examples", "A_adv/B/fgsm", "cell.pt", saying=saying)


def test_examples_that_fool_another_number_than_the_matrix_has_are_not_exported(gradshard, copied_project):
    matrix = copied_project.path / "evaluation/10/matrix.parquet"
    rows = results.read_matrix(matrix)
    for row in rows:
        row["errors"] += 1
    results.write_matrix(matrix, rows)
    saying = "do: other models or another machine made it, so run `gradshard evaluate` here first"
    refused(gradshard, copied_project, "export-examples", "A_adv/B/fgsm", "cell.pt", saying=saying)
    assert not (copied_project.path / "cell.pt").exists()
