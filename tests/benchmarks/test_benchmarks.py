"""Every benchmark runs; what it claims is for whoever runs it, not for the suite."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import MODULES, RESULTS, _measure, machine, table, versions
from benchmarks.ratios import Claim, claim, compare, ratios, seconds

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_runs_and_says_what_it_does_not_show(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert "What it does not show: " in " ".join(module.__doc__.split())
    # In a process of its own, as it is when it counts: some loaders fork, which some libraries' threads do not survive.
    claims = _measure(name, quick=True)
    assert any(found["value"] > 0 for found in claims)
    for found in claims:
        assert found["value"] >= 0
        assert found["name"] in Claim.restore(found).line()


@pytest.mark.slow
def test_a_benchmark_that_lacks_a_library_names_the_extra_that_brings_it(tmp_path):
    (tmp_path / "torchattacks.py").write_text("raise ModuleNotFoundError('not there', name='torchattacks')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "benchmarks", "training", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "Error: the benchmark training needs the package torchattacks: pip install 'gradshard[peers]'"
    )


def test_every_module_of_the_folder_is_one_that_is_run():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert {name for name in files if "def measure(" in (ROOT / f"benchmarks/{name}.py").read_text()} == set(MODULES)


def test_a_claim_holds_up_to_its_target():
    found = compare("work", lambda: None, lambda: None, target=1e9, repeats=3)
    assert found.reached
    assert "NOT reached" in dataclasses.replace(found, target=0).line()
    assert found.least <= found.value <= found.largest
    assert claim("fast", [2.0, 3.0, 2.5], target=2.5, at="least").reached
    assert not claim("fast", [2.0, 3.0, 2.4], target=2.5, at="least").reached
    assert claim("known", [1.0]).reached is None
    assert "no target" in claim("known", [1.0]).line()


def test_everything_is_timed_once_a_round_in_an_order_that_turns():
    seen = []
    times = seconds({name: lambda name=name: seen.append(name) for name in "abc"}, repeats=3)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert ratios({"a": [2.0, 3.0], "b": [1.0, 2.0]}, "a", "b") == [2.0, 1.5]


def test_results_become_a_table_under_what_each_module_says():
    rows = [{"benchmark": "opening", **claim("one over other", [1.0, 1.2, 1.1], target=1.1).record()}]
    text = table({"machine": machine(), "versions": versions(), "results": rows})
    assert "| one over other | 1.1 | 1 to 1.2, 3 | at most 1.1 | reached |" in text
    assert "### `opening`" in text
    assert "What it does not show" in text


def test_the_docs_show_the_kept_results():
    if RESULTS.exists():
        assert table(json.loads(RESULTS.read_text())) in (ROOT / "docs/benchmarks.md").read_text()
