"""`gradshard examine`: right verdicts on models that no pipeline trained, one sentence on bad input, no work lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradshard.pipeline import models
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset_writer import write_dataset
from tests.helpers import zoo
from tests.helpers.projects import Project
from tests.helpers.trained import train_on

ROOT = Path(__file__).parents[2]
SOURCE = "S=tests.helpers.zoo:cnn:source.safetensors"
PARTS = ".partial/examine-*/*.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """The 1,000 test digits, as a dataset and as archives, and a source of transferred examples."""
    path = tmp_path_factory.mktemp("examined")
    splits = {"train": tuple(part[:50] for part in digits["train"]), "test": digits["test"]}
    assert sum(write_dataset(path / "digits.zarr", name="digits", classes=10, splits=splits)) == 1050
    images, labels = digits["test"]
    np.savez(path / "digits.npz", x_test=images[:, 0] / np.float32(255), y_test=labels)
    np.savez(path / "normalised.npz", x_test=(images / np.float32(255) - 0.13) / 0.31, y_test=labels)
    whole = (path / "digits.npz").read_bytes()
    (path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (path / "altered.npz").write_bytes(whole[:2000] + bytes(1000) + whole[3000:])
    with (path / "single.npz").open("wb") as file:
        np.save(file, images)
    np.savez(path / "named.npz", x_test=images, y_test=labels.astype(str))
    save(path / "source.safetensors", zoo.train(zoo.cnn, digits, epochs=2, seed=1))
    return path


def save(path, model):
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


@pytest.fixture
def examine(folder, gradshard, tmp_path):
    """Examine a model; gives the exit code, what was said, and the record if there is one."""

    def run(model, *options, weights="source.safetensors", dataset="digits.zarr"):
        named = ["--weights", weights] if weights else []
        arguments = [model, *named, "--dataset", dataset, "--into", str(tmp_path / "found"), *options]
        code, said = gradshard(Project(folder), "examine", *arguments)
        record = tmp_path / "found/examination.json"
        return code, said, json.loads(record.read_text()) if record.exists() else None

    return run


def flags(record):
    return {flag["name"] for flag in record["flags"]}


def error(record, attack, source="self"):
    wanted = (attack, {"clean": "", "worst_case": "any"}.get(attack, source))
    return next(row["error_rate"] for row in record["errors"] if (row["attack"], row["source"]) == wanted)


@pytest.mark.slow
def test_an_undefended_model_that_torch_saved_raises_no_flag(examine, folder, digits):
    torch.save({"state_dict": train_on(digits, "D", seed=5, rows=4000).state_dict()}, folder / "plain.pt")
    code, said, record = examine("D", "--quick", "--against", SOURCE, weights="plain.pt")
    assert (code, record["masked"]) == (0, False)
    assert "no flag" in said
    assert error(record, "clean") < 0.15
    assert error(record, "pgd") > 0.95


@pytest.mark.slow
def test_a_robust_model_raises_no_flag_and_keeps_most_images(examine, folder, digits):
    save(folder / "pgd.safetensors", zoo.train(zoo.cnn, digits, epochs=8, seed=3, perturbed=zoo.pgd_examples))
    code, _, record = examine("tests.helpers.zoo:cnn", "--quick", "--against", SOURCE, weights="pgd.safetensors")
    assert (code, record["masked"]) == (0, False)
    assert error(record, "clean") < error(record, "fgsm", "S") < error(record, "worst_case") < 0.6


@pytest.mark.slow
def test_a_model_that_rounds_its_input_is_found_out(examine, folder, digits):
    save(folder / "quantised.safetensors", zoo.train(zoo.quantised, digits, epochs=3, seed=3))
    code, said, record = examine(
        "tests.helpers.zoo:quantised", "--quick", "--against", SOURCE, weights="quantised.safetensors"
    )
    assert (code, record["masked"]) == (1, True)
    assert flags(record) == {"black-box-beats-white-box", "correct-at-full-epsilon", "zero-gradients"}
    assert error(record, "pgd") < 0.1 < 0.9 < error(record, "fgsm", "S") <= error(record, "worst_case")
    assert "zero-gradients: for some examples the gradient is 0 in every pixel" in said


@pytest.mark.slow
def test_a_distilled_model_is_found_out_by_the_rounded_gradient_and_broken_by_the_exact_one(examine, folder, digits):
    save(folder / "distilled.safetensors", zoo.distil(digits))
    options = ("--quick", "--against", SOURCE)
    code, _, record = examine(
        "tests.helpers.zoo:distilled", *options, "--gradient", "cross_entropy", weights="distilled.safetensors"
    )
    assert code == 1
    assert {"zero-gradients", "black-box-beats-white-box"} <= flags(record)
    assert error(record, "pgd") < 0.2
    code, _, record = examine("tests.helpers.zoo:distilled", *options, weights="distilled.safetensors")
    assert (code, record["flags"]) == (0, [])
    assert error(record, "pgd") > 0.95


def test_the_page_shows_every_attack_and_says_what_was_left_out(examine, tmp_path):
    code, said, record = examine("tests.helpers.zoo:cnn", "--quick", "--images", "60", "--eps", "0.2")
    page = (tmp_path / "found/index.html").read_text()
    assert code == 0
    assert said.strip().endswith("; no flag: its own attacks can be believed, which does not make it robust")
    for text in ("No flag.", "Random signs", "RAND+FGSM", "PGD", "Worst case", "ε = 0.2", "over 60 of 1000 test"):
        assert text in page, text
    assert "transferred examples, because no source was given by --against" in page
    assert "black-box-beats-white-box could not be raised" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"", page)
    assert {row["n"] for row in record["errors"]} == {60}
    for row in record["errors"]:
        assert row["wilson_low"] <= row["error_rate"] <= row["wilson_high"]


def test_a_model_without_weights_is_said_once_to_have_those_of_its_factory(examine):
    options = ("tests.helpers.zoo:cnn", "--quick", "--images", "20")
    said = "tests.helpers.zoo:cnn: examined with the weights that its factory sets, because --weights names none"
    assert examine(*options, weights=None)[1].count(said) == 1
    assert said not in examine(*options)[1]


def test_attacks_from_elsewhere_are_added_and_a_misnamed_one_is_told_before_any_work(examine, tmp_path):
    pytest.importorskip("torchattacks")
    options = ("--quick", "--images", "40", "--attack", "torchattacks:DIFGSM")
    code, _, record = examine("tests.helpers.zoo:cnn", *options)
    assert code == 0
    assert error(record, "torchattacks:DIFGSM") <= error(record, "worst_case")
    assert record["attacks"] == {"torchattacks:DIFGSM": f"torchattacks {metadata.version('torchattacks')}"}
    assert "torchattacks:DIFGSM" in (tmp_path / "found/index.html").read_text()
    assert "attacks" not in examine("tests.helpers.zoo:cnn", *options[:3], "--attack", "fgsm")[2]
    code, said, _ = examine("tests.helpers.zoo:cnn", *options, "--attack", "torchattacks:DIFGSN")
    assert code == 2
    assert "DIFGSN" in said
    assert said.count("\n") == 1


def test_an_archive_of_images_is_examined_as_the_dataset_of_the_same_images_is(examine):
    options = ("--quick", "--images", "50", "--seed", "1")
    _, _, archived = examine("tests.helpers.zoo:cnn", *options, dataset="digits.npz")
    _, _, prepared = examine("tests.helpers.zoo:cnn", *options)
    assert archived.pop("dataset") != prepared.pop("dataset")
    assert archived == prepared


def test_a_weights_file_of_gradshard_says_itself_what_it_holds(examine, folder, digits):
    model = models.create_model("D", (1, 28, 28), 10, seed=1)
    for name, architecture in (("D", "D"), ("own", "tests.helpers.zoo:cnn")):
        checkpoints.save(folder / f"{name}.safetensors", model.state_dict(), {"architecture": architecture})
    options = ("--quick", "--images", "20", "--against", "D.safetensors")
    _, _, record = examine("D.safetensors", *options, weights=None)
    assert record["model"] == record["sources"]["D"] == record["model"] | {"architecture": "D"}
    assert error(record, "fgsm") == error(record, "fgsm", "D")
    code, said, _ = examine("own.safetensors", weights=None)
    assert code == 2
    assert "whose code runs only if you name it" in said


@pytest.mark.slow
def test_without_quick_all_attacks_run_autoattack_among_them(examine):
    pytest.importorskip("pyautoattack")
    _, _, record = examine("tests.helpers.zoo:cnn", "--images", "30", "--against", SOURCE)
    assert {row["attack"] for row in record["errors"] if row["source"] == "self"} == {
        *("noise", "fgsm", "ifgsm", "rand_fgsm", "mifgsm", "pgd", "cw", "autoattack")
    }
    assert error(record, "autoattack") == 1
    assert record["left_out"] == []


@pytest.mark.parametrize(
    ("model", "given", "saying"),
    [
        ("tests.helpers.zoo:probabilities", {"weights": None}, "gives probabilities and not logits"),
        ("tests.helpers.zoo:eleven_classes", {"weights": None}, "not logits of shape (1, 10)"),
        ("tests.helpers.zoo:random_each_pass", {"weights": None}, "is random in eval mode"),
        ("tests.helpers.zoo:without_gradient", {"weights": None}, "lets no gradient through to the images"),
        ("tests.helpers.zoo:saturated", {}, "lacks 1 of the 9 tensors of the architecture"),
        ("tests.helpers.zoo:cnn", {"weights": "none.safetensors"}, "no checkpoint at none.safetensors"),
        ("tests.helpers.zoo:cnn", {"dataset": "normalised.npz"}, "and not from 0 to 1: give pixels"),
        ("tests.helpers.zoo:cnn", {"dataset": "named.npz"}, "give the number of each image's class"),
        ("tests.helpers.zoo:cnn", {"dataset": "cut.npz"}, "cut.npz is not a NumPy archive of x_test and y_test"),
        ("tests.helpers.zoo:cnn", {"dataset": "altered.npz"}, "altered.npz is not a NumPy archive of x_test and"),
        ("tests.helpers.zoo:cnn", {"dataset": "single.npz"}, "x_test and y_test (it is a single array)"),
        ("tests.helpers.zoo:cnn", {"dataset": "none.zarr"}, "no dataset at none.zarr"),
        ("tests.helpers.zoo:cnn", {"dataset": "none.npz"}, "no file none.npz"),
        ("A", {"weights": None}, "A has no weights: name their file by --weights"),
        ("E", {}, "unknown architecture E"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(examine, model, given, saying):
    code, said, record = examine(model, **given)
    assert (code, record) == (2, None)
    assert saying in said.strip().splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("option", "value", "saying"),
    [
        ("--against", "source.safetensors", "source.safetensors is not a weights file of gradshard"),
        ("--against", "S=source.safetensors", "or NAME=ARCHITECTURE:WEIGHTS"),
        ("--against", "self=A:a.safetensors", "or NAME=ARCHITECTURE:WEIGHTS"),
        ("--eps", "8", "must be above 0 and at most 1"),
        ("--eps", "8/0", "must be a number such as 0.3 or 8/255"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_one_sentence(examine, option, value, saying):
    code, said, record = examine("tests.helpers.zoo:cnn", option, value)
    assert (code, record) == (2, None)
    assert saying in said


def test_a_folder_that_cannot_be_made_is_told_before_any_work(examine, folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    begun = list(folder.glob(".partial/examine-*"))
    code, said, _ = examine(
        "tests.helpers.zoo:cnn", "--quick", "--images", "20", "--into", str(tmp_path / "file/found")
    )
    assert code == 2
    assert "file/found cannot be a folder: a file is in its way" in said.strip().splitlines()[-1]
    assert list(folder.glob(".partial/examine-*")) == begun
    assert (tmp_path / "file").read_text() == "mine"


def test_what_was_examined_is_kept_until_both_files_are_written(examine, folder, tmp_path):
    options = ("--quick", "--images", "20", "--seed", "7")
    (tmp_path / "found/index.html/in-its-way").mkdir(parents=True)
    code, said, _ = examine("tests.helpers.zoo:cnn", *options)
    assert code == 2, said
    assert list(folder.glob(PARTS))
    (tmp_path / "found/index.html/in-its-way").rmdir()
    (tmp_path / "found/index.html").rmdir()
    code, said, _ = examine("tests.helpers.zoo:cnn", *options)
    assert code == 0
    assert "going on: 20 of 20 images are done" in said
    assert not list(folder.glob(PARTS))


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_bytes_whatever_the_number_of_workers(folder):
    def start(into, *options):
        model = ["tests.helpers.zoo:cnn", "--weights", "source.safetensors", "--dataset", "digits.zarr"]
        command = [sys.executable, "-m", "gradshard", "examine", *model, "--quick", "--into", into, *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)

    process, deadline = start("killed"), time.monotonic() + 120
    while len(list(folder.glob(PARTS))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(folder.glob(PARTS)))
    assert list((folder / "killed").iterdir()) == []
    process = start("killed", "--workers", "1")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert f"going on: {100 * done} of 1000 images are done" in said
    assert start("undisturbed").wait(timeout=240) == 0
    for name in ("examination.json", "index.html"):
        assert (folder / "killed" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
    assert not list(folder.glob(PARTS))
