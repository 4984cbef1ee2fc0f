"""Bad input: one sentence, exit code 2, no traceback, nothing half-written."""

import gzip
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.helpers.idx_files import write_idx_folder
from tests.helpers.refusals import refused


def set_key(project, section, key, value):
    project.edit(lambda params: params[section].update({key: value}))


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["train-static", "A"], "no dataset at data/npz.zarr: run `gradshard prepare`"),
        (["precompute", "A"], "no dataset at"),
        (["train-robust", "A_adv"], "no dataset at"),
        (["evaluate"], "no dataset at"),
        (
            ["report"],
            "no results at evaluation/10/matrix.parquet, analysis/10/gradients.json, blackbox/10/results.json: run "
            "`gradshard evaluate --seed 10`, `gradshard analyze --seed 10`, `gradshard blackbox --seed 10` (or ",
        ),
        (["table", "report/matrix.parquet"], "no results at report/matrix.parquet: run `gradshard report`, which"),
        (["compare", "report/matrix.parquet", "A", "B"], "matrix.parquet: run `gradshard report`, which writes"),
        (["train-static", "Z"], "Z is not a static model in the parameters: there are A, B, C, D"),
        (["train-robust", "A"], "A is not a robust model in the parameters: there are A_adv, A_adv-ens"),
        (["train-robust", "A_adv", "--seed", "9"], "seed 9 is none of the parameter seeds: there are 10; add it there"),
        (["evaluate", "--seed", "9"], "seed 9 is none of the parameter seeds: there are 10"),
        (["precompute", "B"], "B is not a sign store in the parameters: there are A, C, D"),
    ],
)
def test_a_stage_before_its_time_names_the_one_to_run(gradshard, project, arguments, saying):
    refused(gradshard, project, *arguments, saying=saying)


def test_a_missing_parameter_file_is_told(gradshard, project):
    (project.path / "params.yaml").unlink()
    refused(gradshard, project, "prepare", saying="no parameter file params.yaml")


def test_a_wrong_parameter_is_told_before_anything_runs(gradshard, project):
    set_key(project, "attack", "eps", 0)
    refused(gradshard, project, "prepare", saying="params.yaml: attack.eps must be above 0")


@pytest.mark.parametrize(
    "arguments",
    [["train-static", "A"], ["precompute", "A"], ["train-robust", "A_adv"], ["evaluate"], ["analyze"], ["blackbox"]],
    ids=" ".join,
)
def test_a_stage_refuses_a_wrong_parameter_before_torch_is_imported(project, arguments):
    set_key(project, "attack", "eps", 0)
    code = "import sys; from gradshard.stages.cli import run\ntry: run()\nfinally: print('torch' in sys.modules)"
    done = run_in(project.path, [sys.executable, "-c", code, *arguments])
    assert "GradshardError: params.yaml: attack.eps must be above 0" in done.stderr
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("damage", "saying"),
    [
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0"), "is not an IDX file"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "no t10k-labels-idx1-ubyte"),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\0\1"),
            "40 images but",
        ),
        (
            lambda f: (f / "train-images-idx3-ubyte").write_bytes((f / "train-images-idx3-ubyte").read_bytes()[:-9]),
            "is truncated",
        ),
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(gzip.compress(b"x" * 99)[:-9]), "damaged gzip"),
    ],
    ids=["foreign", "missing", "counts differ", "truncated", "damaged gzip"],
)
def test_prepare_refuses_bad_idx_files(gradshard, project, damage, saying):
    damage(write_idx_folder(project.path / "raw"))
    project.edit(lambda params: params.update(dataset={"name": "idx", "path": "raw"}))
    refused(gradshard, project, "prepare", saying=saying)


def test_prepare_refuses_labels_out_of_range(gradshard, project):
    write_idx_folder(project.path / "raw", classes=4)
    project.edit(lambda params: params.update(dataset={"name": "idx", "path": "raw", "classes": 3}))
    refused(gradshard, project, "prepare", saying="out of range for 3 classes")


def test_prepare_refuses_mnist_that_is_not_mnist(gradshard, project, monkeypatch):
    monkeypatch.setenv("GRADSHARD_DATA", str(write_idx_folder(project.path / "raw")))
    project.edit(lambda params: params.update(dataset={"name": "mnist"}))
    refused(gradshard, project, "prepare", saying="is not the file it should be")


def test_prepare_asks_for_the_raw_data_of_a_dataset_it_cannot_fetch(gradshard, project, monkeypatch):
    monkeypatch.delenv("GRADSHARD_DATA", raising=False)
    project.edit(lambda params: params.update(dataset={"name": "idx"}))
    refused(gradshard, project, "prepare", saying="set dataset.path in the parameters, or GRADSHARD_DATA")


def test_a_shuffled_dataset_stops_training(gradshard, copied_project):
    group = zarr.open_group(copied_project.path / "data/npz.zarr/train", mode="r+")
    for name in ("images", "labels"):
        group[name][:] = group[name][:][::-1]
    for stage in (["train-static", "A"], ["train-robust", "A_adv-ens"]):
        refused(gradshard, copied_project, *stage, saying="were changed or reordered after preparation")


def test_a_store_of_another_dataset_stops_training(gradshard, copied_project):
    with np.load(copied_project.path / "digits.npz") as archive:
        arrays = dict(archive)
    arrays["x_train"] = arrays["x_train"][::-1]
    np.savez(copied_project.path / "digits.npz", **arrays)
    assert gradshard(copied_project, "prepare")[0] == 0
    refused(gradshard, copied_project, "train-robust", "A_adv-ens", saying="run `gradshard precompute A` for this")


@pytest.mark.parametrize(
    ("shard", "saying"), [("signs/c/0/0/0", "signs/c/0/0/0 is missing"), ("manifest.json", "no published sign store")]
)
def test_a_missing_shard_or_store_stops_training(gradshard, copied_project, shard, saying):
    (copied_project.path / "signs/C.zarr" / shard).unlink()
    refused(gradshard, copied_project, "train-robust", "A_adv-ens", saying=saying)


@pytest.mark.parametrize("command", [["table", "report"], ["compare", "report", "A_adv", "A"]])
def test_a_folder_in_place_of_a_matrix_is_told_which_file_to_name(gradshard, copied_project, command):
    refused(
        gradshard, copied_project, *command, saying="no results at report: run `gradshard report`, which writes rep"
    )


def test_a_report_names_the_stages_that_did_not_run_and_no_others(gradshard, copied_project):
    queried = copied_project.path / "blackbox/10/results.json"
    kept = queried.read_bytes()
    queried.unlink()
    refused(gradshard, copied_project, "report", saying="results.json: run `gradshard blackbox --seed 10` (or `dvc rep")
    copied_project.edit(lambda params: params.update(seeds=[10, 11]))
    refused(gradshard, copied_project, "report", saying="`gradshard analyze --seed 11`, `gradshard blackbox --seed 10`")
    copied_project.edit(lambda params: params.update(seeds=[10]))
    queried.write_bytes(kept)
    (copied_project.path / "evaluation/10/provenance.json").unlink()
    refused(
        gradshard, copied_project, "report", saying="provenance.json: run `gradshard evaluate` again, or `dvc repro`"
    )


@pytest.mark.parametrize("stage", [["precompute", "A"], ["evaluate"]])
def test_weights_of_another_architecture_are_refused(gradshard, copied_project, stage):
    set_key(copied_project, "static", "A", {"architecture": "C", "epochs": 2})
    refused(gradshard, copied_project, *stage, saying="holds a model of architecture D, but the parameters say C")


def test_damaged_weights_are_refused(gradshard, copied_project):
    path = copied_project.path / "models/static/A.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(gradshard, copied_project, "precompute", "A", saying="is damaged")


def test_a_missing_model_is_named_with_the_stage_that_makes_it(gradshard, copied_project):
    shutil.rmtree(copied_project.path / "models/snapshots/A_adv-10")
    refused(gradshard, copied_project, "evaluate", saying="run `gradshard train-robust A_adv --seed 10` first")


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_old_weights(gradshard, copied_project):
    set_key(copied_project, "training", "learning_rate", 1e30)
    refused(gradshard, copied_project, "train-static", "A", saying="lower training.learning_rate")


def test_a_training_that_learnt_nothing_says_so_and_one_that_learnt_does_not(gradshard, copied_project):
    code, said = gradshard(copied_project, "train-static", "D")
    assert code == 0
    assert (
        "D learnt nothing: guessing among 10 classes has a loss of 2.3026; lower static.D.training.learning_rate"
        in said
    )
    copied_project.edit(lambda params: params["static"]["D"].update(epochs=15))
    assert "learnt nothing" not in gradshard(copied_project, "train-static", "D")[1]


def test_a_device_that_is_not_there_is_refused(gradshard, copied_project):
    copied_project.edit(lambda params: params.update(device="mps"))
    refused(gradshard, copied_project, "train-static", "A", saying="device: mps is not available here")


def test_a_mistyped_command_or_option_is_told_with_code_2(gradshard, project):
    assert gradshard(project, "prepar")[0] == 2
    assert gradshard(project, "prepare", "--nothing")[0] == 2


def test_an_output_folder_that_is_not_writable_is_told(copied_project):
    command = [sys.executable, "-m", "gradshard", "train-static", "A"]
    if os.geteuid() == 0:
        # Root without its capabilities obeys permissions like anybody.
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    folders = [copied_project.path / name for name in (".", ".partial", "models/static")]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = run_in(copied_project.path, command)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("gradshard: no permission to write or read (")
    assert done.stderr.count("\n") == 1


FULL_DISK = """
set -e
mount -t tmpfs -o size=40m tmpfs "$1"
cp -r "$2"/. "$1"
cd "$1"
rm -rf signs/D.zarr
free=$(df --output=avail -k . | tail -1)
dd if=/dev/zero of=filler bs=1k count=$((free - 60)) status=none
code=0; "$3" -m gradshard precompute D || code=$?
echo "first: $code"
[ ! -e signs/D.zarr ] || echo "half-written"
rm filler
"$3" -m gradshard precompute D
diff -r signs/D.zarr "$2"/signs/D.zarr && echo "the same bytes"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0,
    reason="this system lets no user mount a small disk",
)
def test_a_full_disk_is_told_and_the_stage_goes_on_when_there_is_room(finished_project, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [
        "unshare",
        "-Urm",
        "bash",
        "-c",
        FULL_DISK,
        "bash",
        str(disk),
        str(finished_project.path),
        sys.executable,
    ]
    done = run_in(tmp_path, command)
    assert "first: 2" in done.stdout, done.stdout + done.stderr
    assert "gradshard: no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert "half-written" not in done.stdout
    assert "shards are there" in done.stderr
    assert "the same bytes" in done.stdout


def run_in(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
