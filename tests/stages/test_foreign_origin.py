"""Stores made in Python of one's own module, audited and mended by a colleague who has store, weights and factory."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradshard.pipeline.loading import compute_signs
from tests.helpers.projects import Project

FACTORY = """
from torch import nn

def network(sample_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, classes))

def other_names(sample_shape, classes):
    return nn.Sequential(nn.Identity(), network(sample_shape, classes))
"""
STORE = "signs/mine.zarr"
FACTORY_OPTION = ("--architecture", "theirs:network")


@dataclass(frozen=True)
class Sent:
    """The folder that a colleague got."""

    project: Project
    gradshard: object

    def audit(self, *options, command="audit", weights="cnn.pt", dataset="digits.npz", place=STORE):
        origin = ("--model", weights, "--dataset", dataset)
        return self.gradshard(self.project, "store", command, place, *origin, *options)


@pytest.fixture
def sent(tmp_path, monkeypatch, digits, gradshard):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(FACTORY)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)).eval()
    images, labels = (part[:80] for part in digits["train"])
    compute_signs(model, (images, labels), STORE, name="digits")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, "cnn.pt")
    np.savez("digits.npz", x_train=images, y_train=labels)
    return Sent(Project(tmp_path), gradshard)


def test_a_store_of_ones_own_module_is_audited_by_its_state_dict_its_factory_and_its_arrays(sent):
    code, said = sent.audit(*FACTORY_OPTION)
    assert code == 0, said


def test_the_floats_that_a_store_was_made_of_are_its_rows_too(sent):
    with np.load("digits.npz") as archive:
        np.savez("floats.npz", x_train=archive["x_train"][:, 0] / np.float32(255), y_train=archive["y_train"])
    code, said = sent.audit(*FACTORY_OPTION, dataset="floats.npz")
    assert code == 0, said


@pytest.mark.parametrize(
    ("command", "options"), [("views", ("--rows", "20")), ("fidelity", ("--target", "D.safetensors", "--eps", "0.2"))]
)
def test_views_and_fidelity_take_what_the_audit_takes(sent, command, options):
    from gradshard.pipeline import models
    from gradshard.storage.formats import checkpoints

    target = models.create_model("D", (1, 28, 28), 10, seed=0)
    checkpoints.save(Path("D.safetensors"), target.state_dict(), {"architecture": "D"})
    code, said = sent.audit(*FACTORY_OPTION, *options, command=command)
    assert code == 0, said


def test_a_target_of_a_factory_is_fooled_if_its_architecture_is_named(sent):
    from gradshard.storage.formats import checkpoints

    checkpoints.save(Path("ours.safetensors"), torch.load("cnn.pt")["state_dict"], {"architecture": "theirs:network"})
    origin = (*FACTORY_OPTION, "--eps", "0.2", "--rows", "20", "--target")
    code, said = sent.audit(*origin, "ours.safetensors", command="fidelity")
    assert code == 2
    named = said.strip().rpartition("give --target ")[2]
    assert named == "ours=theirs:network:ours.safetensors"
    assert sent.audit(*origin, named, "--target", "other=theirs:network:cnn.pt", command="fidelity")[0] == 0
    code, said = sent.audit(*origin, named, "--target", "ours=theirs:network:cnn.pt", command="fidelity")
    assert (code, "two models are called ours" in said) == (2, True)


def test_a_damaged_shard_is_made_again_from_them_byte_for_byte(sent):
    shard = Path(STORE) / "signs/c/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(b"")
    code, said = sent.audit(*FACTORY_OPTION, command="repair")
    assert code == 0, said
    assert shard.read_bytes() == whole


def test_without_a_factory_it_is_told_what_to_give_and_no_code_runs(sent):
    code, said = sent.audit()
    assert (code, said.count("\n")) == (2, 1)
    assert said.strip().endswith(
        "signs/mine.zarr was made in Python from a model of class torch.nn.modules.container.Sequential: give "
        "--architecture package.module:factory of code that you trust, or audit it in Python by gradshard.audit"
    )
    assert "theirs" not in sys.modules


@pytest.mark.parametrize(
    ("options", "given", "sentence"),
    [
        (FACTORY_OPTION, {"weights": "none.pt"}, "no weights at none.pt"),
        (FACTORY_OPTION, {"weights": "other.pt"}, "but other.pt holds"),
        (FACTORY_OPTION, {"weights": "digits.npz"}, "digits.npz is no checkpoint of plain tensors"),
        (("--architecture", "theirs:other_names"), {}, "lacks 4 of the 4 tensors of the architecture"),
        (("--architecture", "E"), {}, "unknown architecture E"),
        (FACTORY_OPTION, {"dataset": "none.npz"}, "no file none.npz"),
        (FACTORY_OPTION, {"dataset": "half.npz"}, "half.npz is not a NumPy archive of x_train and y_train"),
        (FACTORY_OPTION, {"dataset": "test.npz"}, "test.npz is not a NumPy archive of x_train and y_train"),
        (FACTORY_OPTION, {"dataset": "shuffled.npz"}, "the dataset is another: row 0 has other pixels or labels"),
    ],
)
def test_what_the_store_was_not_made_from_is_refused_in_a_sentence(sent, options, given, sentence):
    with np.load("digits.npz") as archive:
        images, labels = archive["x_train"], archive["y_train"]
    np.savez("test.npz", x_test=images, y_test=labels)
    np.savez("shuffled.npz", x_train=images[::-1], y_train=labels[::-1])
    Path("half.npz").write_bytes(Path("digits.npz").read_bytes()[:1000])
    tensors = torch.load("cnn.pt")["state_dict"]
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, "other.pt")
    code, said = sent.audit(*options, **given)
    assert code == 2
    assert sentence in said.splitlines()[-1]
    assert "Traceback" not in said
