"""The plan of stores and of training is arithmetic on stated rates; the docs show what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.pipeline.cost_model import plan
from gradshard.storage.formats.store_paths import expected_files
from tests.helpers.projects import Project, call, call_each

ROOT = Path(__file__).parents[2]
IMAGENET = ("--rows", "1281167", "--shape", "3,299,299", "--sources", "3", "--rate", "3000", "--gpus", "8")
PGD = (*IMAGENET, "--copies", "4", "--passes", "20")
MANY = ("--rows", "14000000", "--shape", "3,299,299", "--sources", "3", "--rate", "3000", "--gpus", "64")
BILLION = ("--rows", "1000000000", "--shape", "3,299,299", "--sources", "3", "--rate", "3000", "--gpus", "512")


def run(*arguments):
    command = [sys.executable, "-m", "gradshard", "plan", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_imagenets_stores_have_1252_shards_a_source():
    told = json.loads(run(*IMAGENET, "--json"))
    assert told["shards"] == 3 * 1252
    assert told["files"] == 3 * (2 * 1252 + 7)
    assert told["memory"] == 3 * 1_281_167 * 2 * 33526
    assert told["disk"] == pytest.approx(3 * 1_281_167 * 268_203 * 1.05 / 8, rel=1e-9)
    assert (told["epochs_against_live"], told["epochs_against_all_sources"]) == (4, 1)
    assert told["stores"] == 1
    assert told["dataset"] == 1_281_167 * 268_203
    assert told["hours"] == pytest.approx(3 * 1_281_167 / 3000 / 3600)
    assert told["precompute_hours"] == pytest.approx(told["hours"] / 8)
    assert told["train_rate"] == pytest.approx(3000 * 2 / 3.25)
    needed = 268_203 * (1 + 1.05 / 8 * 3 / 4)
    assert told["window"] == 8 * 4575
    assert told["read_over_needed"] == pytest.approx(1 + 16 * 8 * 4 / (8 * 4575))
    assert told["read_per_gpu"] == pytest.approx(told["train_rate"] * needed * told["read_over_needed"])
    assert told["read_in_all"] == pytest.approx(100 * 1_281_167 * needed * told["read_over_needed"])
    assert told["memory_per_host"] == 8 * 4 * 2**30


def test_more_seeds_train_longer_on_the_same_stores():
    one, five = (json.loads(run(*IMAGENET, "--seeds", count, "--json")) for count in ("1", "5"))
    assert five["training_hours"] == pytest.approx(5 * one["training_hours"])
    assert (five["hours"], five["disk"]) == (one["hours"], one["disk"])
    assert (one["epochs_against_live"], five["epochs_against_live"]) == (4, 1)


def test_copies_and_passes_of_an_attack_are_counted():
    gradients, pgd = (json.loads(run(*arguments, "--json")) for arguments in (IMAGENET, PGD))
    assert (gradients["copies"], gradients["passes"], gradients["bits"]) == (1, 1, 1.05)
    assert pgd["hours"] == pytest.approx(4 * 20 * gradients["hours"])
    assert pgd["precompute_hours"] == pytest.approx(pgd["hours"] / 8)
    assert pgd["disk"] == pytest.approx(4 * gradients["disk"] * 1.95 / 1.05, rel=1e-9)
    assert pgd["memory"] == 4 * gradients["memory"]
    # The manifest, the description of the files and the table of the rows are beside those that it must name.
    assert pgd["files"] == 3 * (len(expected_files(1252, 4)) + 3)
    assert pgd["read_per_gpu"] == pytest.approx(
        pgd["train_rate"] * 268_203 * (1 + 1.95 / 8 * 3 / 4) * pgd["read_over_needed"]
    )
    assert [pgd[name] for name in ("training_hours", "window")] == [gradients[n] for n in ("training_hours", "window")]
    assert (pgd["epochs_against_live"], pgd["epochs_against_all_sources"]) == (16, 4)
    told, page = run(*PGD), (ROOT / "docs/scale.md").read_text()
    assert "1.01 TB of stores, 28.5 GPU hours once, and 594 MB/s a GPU" in page
    for figure in ("1.01 TB at 1.95 bits per sign for 3 sources in 4 copies", "28.5 GPU hours", "594 MB/s", "after 16"):
        assert figure in told


def test_many_copies_take_more_stores_for_a_manifest_names_each_copys_files():
    one, fifteen = (json.loads(run(*BILLION, "--copies", copies, "--json"))["stores"] for copies in ("1", "15"))
    assert (one, fifteen) == (10, 79)


def test_a_billion_images_take_several_stores():
    told = json.loads(run(*BILLION, "--json"))
    assert told["stores"] == 10
    assert told["hosts"] == 64


def test_the_docs_show_what_the_plan_says():
    page = (ROOT / "docs/scale.md").read_text()
    for arguments in (IMAGENET, MANY, BILLION):
        for line in run(*arguments).splitlines():
            name, _, value = line.partition("  ")
            assert f"| {name} |" in page
            assert f" {value.strip()} |" in page, line


def test_a_plan_is_priced_by_a_table(tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpu_hour: 2.5\ngigabyte_month: 0.02\ngigabyte_read: 0.001\n")
    told = json.loads(run(*IMAGENET, "--seeds", "2", "--prices", str(prices), "--json"))
    assert told["cost"]["stores"] == pytest.approx(2.5 * told["hours"] + 0.001 * 3 * told["dataset"] / 1e9)
    trained = 2.5 * 8 * told["training_hours"] + 0.001 * told["read_in_all"] / 1e9
    assert told["cost"]["training"] == pytest.approx(trained)
    assert told["cost"]["month"] == pytest.approx(0.02 * (told["dataset"] + told["disk"]) / 1e9)
    assert "a month to keep dataset and stores" in run(*IMAGENET, "--prices", str(prices))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read as a table of prices"),
        ("gpu_hour: [", "cannot be read as a table of prices"),
        ("gpu_hour: 2024-13-45", "cannot be read as a table of prices"),
        ("3", "is no table of prices: write `gpu_hour: 2.5`"),
        ("gigabyte_month: 1", "is no table of prices: write `gpu_hour: 2.5`"),
        ("{gpu_hour: 1, tea: 2}", "has the unknown price tea"),
        ("gpu_hour: free", "gpu_hour is free, which is no price"),
        ("gpu_hour: -1", "gpu_hour is -1, which is no price"),
    ],
)
def test_a_table_that_has_no_prices_is_told_in_a_sentence(tmp_path, gradshard, text, sentence):
    if text is not None:
        (tmp_path / "prices.yaml").write_text(text)
    code, said = gradshard(Project(tmp_path), "plan", *IMAGENET, "--prices", str(tmp_path / "prices.yaml"))
    assert (code, sentence in said, said.count("\n")) == (2, True, 1), said


def test_without_rows_and_shape_a_project_is_planned_for_its_own_images_and_models(project, monkeypatch, capsys):
    call_each(project, ("prepare",))
    monkeypatch.chdir(project.path)
    models, told = str(len({store["model"] for store in project.params()["signs"].values()})), []
    for named in ((), ("--rows", "600", "--shape", "1,28,28", "--sources", models)):
        capsys.readouterr()
        assert call(monkeypatch, "plan", *named, "--rate", "1000", "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]


@pytest.mark.parametrize("given", [(), ("--rows", "50000")], ids=str)
def test_without_a_project_rows_and_shape_are_asked_for_in_numbers(tmp_path, gradshard, given):
    code, said = gradshard(Project(tmp_path), "plan", *given, "--rate", "1000")
    assert (code, said.count("\n")) == (2, 1)
    assert "give --rows and --shape in numbers, such as --rows 50000 --shape 3,32,32; without them they are" in said
    assert "no parameter file params.yaml" in said


def test_a_rate_that_is_not_given_is_measured():
    told = run("--rows", "60000", "--shape", "1,28,28", "--architecture", "D")
    assert re.match(r"rate +[\d.e+]+ images/s a GPU, measured here\n", told)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--shape", "28,28", "--rate", "1"), "--shape must be three numbers such as 1,28,28, but is 28,28"),
        (("--shape", "1,0,28", "--rate", "1"), "--shape must be three positive numbers, but is 1,0,28"),
        (("--shape", "1,28,28"), "give one of --rate and --architecture"),
        (("--shape", "1,28,28", "--rate", "1", "--architecture", "A"), "give one of --rate and --architecture"),
        (("--shape", "1,28,28", "--architecture", "Z"), "unknown architecture Z"),
        (("--shape", "1,28,28", "--rate", "1", "--memory", "much"), "--memory must be a size such as 4 GiB"),
        (("--shape", "1,28,28", "--rate", "1", "--memory", "0"), "--memory must be at least a byte"),
        (("--shape", "1,28,28", "--rate", "nan"), "nan is no number"),
        (("--shape", "1,28,28", "--rate", "1", "--bits", "1e300"), "1e+300 is not in the range"),
        (("--shape", "1,28,28", "--rate", "1", "--train-rate", "inf"), "inf is not in the range"),
    ],
)
def test_what_cannot_be_planned_is_told_in_a_sentence(tmp_path, gradshard, arguments, sentence):
    code, said = gradshard(Project(tmp_path), "plan", "--rows", "10", *arguments)
    assert (code, sentence in said, "Traceback" in said) == (2, True, False), said


@pytest.mark.parametrize("gpus", [1, 3, 16])
def test_hours_fall_and_reading_grows_with_the_gpus(gpus):
    options = {"rows": 10_000, "pixels": 3072, "sources": 2, "rate": 100, "train_rate": 50, "epochs": 3}
    one = plan(gpus=1, gpus_per_host=4, budget=1 << 30, **options)
    many = plan(gpus=gpus, gpus_per_host=4, budget=1 << 30, **options)
    assert many.hours == one.hours
    assert many.precompute_hours == pytest.approx(one.hours / gpus)
    assert many.training_hours == pytest.approx(one.training_hours / gpus)
    assert many.read / many.read_over_needed == pytest.approx(gpus * one.read / one.read_over_needed)
    assert many.memory_per_host == min(gpus, 4) << 30
    assert one.window == 10_000
