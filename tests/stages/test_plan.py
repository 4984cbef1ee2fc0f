"""The plan of a whole experiment is arithmetic on stated rates; the docs show what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.pipeline.cost_model import experiment_cost, plan

ROOT = Path(__file__).parents[2]
IMAGENET = ("--rows", "1281167", "--shape", "3,299,299", "--sources", "3", "--rate", "3000", "--gpus", "8")
BILLION = ("--rows", "1000000000", "--shape", "3,299,299", "--sources", "3", "--rate", "3000", "--gpus", "512")


def run(*arguments):
    command = [sys.executable, "-m", "gradshard", "plan", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_imagenets_stores_have_1252_shards_a_source():
    told = json.loads(run(*IMAGENET, "--json"))
    assert told["shards"] == 3 * 1252
    assert told["stores"] == 1
    assert told["dataset"] == 1_281_167 * 268_203
    assert told["hours"] == pytest.approx(3 * 1_281_167 / 3000 / 3600)
    assert told["precompute_hours"] == pytest.approx(told["hours"] / 8)
    assert told["train_rate"] == pytest.approx(3000 * 2 / 3.25)
    assert told["read_per_gpu"] == pytest.approx(told["train_rate"] * 268_203 * (1 + 1.05 / 8 * 3 / 4))
    assert told["memory_per_host"] == 8 * 4 * 2**30


def test_a_billion_images_take_several_stores():
    told = json.loads(run(*BILLION, "--json"))
    assert told["stores"] == 62
    assert told["hosts"] == 64


def test_the_docs_show_what_the_plan_says():
    page = (ROOT / "docs/scale.md").read_text()
    for arguments in (IMAGENET, BILLION):
        for line in run(*arguments).splitlines():
            name, _, value = line.partition("  ")
            assert f"| {name} |" in page
            assert f" {value.strip()} |" in page, line


@pytest.mark.parametrize("gpus", [1, 3, 16])
def test_hours_fall_and_reading_grows_with_the_gpus(gpus):
    stores = plan(rows=10_000, pixels=3072, sources=2, rate=100)
    options = {"rows": 10_000, "pixels": 3072, "sources": 2, "gpus_per_host": 4, "train_rate": 50, "epochs": 3}
    one = experiment_cost(stores, gpus=1, budget=1 << 30, **options)
    many = experiment_cost(stores, gpus=gpus, budget=1 << 30, **options)
    assert many.training_hours == pytest.approx(one.training_hours / gpus)
    assert many.read == pytest.approx(gpus * one.read)
    assert many.memory_per_host == min(gpus, 4) << 30
    assert one.window == 10_000
