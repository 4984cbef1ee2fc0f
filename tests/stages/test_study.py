"""The study of a real project: two robust models, two seeds, from training to the page, and from kept files alone."""

import json
import shutil

import numpy as np
import pytest

from gradshard.storage.formats import results
from gradshard.storage.formats.manifest import read_manifest
from tests.helpers.projects import Project, call, call_each, files

pytestmark = pytest.mark.slow

SEEDS = ("10", "11")
ATTACKS = ["fgsm", "mifgsm"]


def ask_for_a_study(params: dict) -> None:
    """B alone is of an architecture that no target's training saw."""
    params["seeds"] = [10, 11]
    params["static"]["B"]["architecture"] = "small_cnn"
    params["analysis"] |= {"baseline": "A_adv", "models": [], "plane": None}
    params["blackbox"] |= {"targets": [], "forest": None}
    params["evaluation"] |= {
        "targets": ["A", "A_adv", "A_adv-ens", "A_adv-ens@1"],
        "attacks": {"fgsm": ["A_adv", "A_adv-ens"]},
        "diagnosed": [],
        "battery": {"sources": ["C", "B"], "attacks": ATTACKS},
    }


@pytest.fixture(scope="module")
def studied(finished_project, tmp_path_factory) -> Project:
    """A project that was trained, evaluated and reported with two seeds."""
    project = finished_project.copy_to(tmp_path_factory.mktemp("study") / "project")
    project.edit(ask_for_a_study)
    call_each(
        project,
        ("train-static", "B"),
        *(("train-robust", model, "--seed", "11") for model in ("A_adv", "A_adv-ens")),
        *((stage, "--seed", seed) for stage in ("evaluate", "analyze", "blackbox") for seed in SEEDS),
        ("report",),
    )
    return project


def table(project, capsys, matrix, name="study"):
    """The cells of a table by row and column, from the command that prints it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        capsys.readouterr()
        assert call(patch, "table", str(matrix), "--name", name) == 0
    head, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    return {row: dict(zip(head[1:], (cell.strip("*") for cell in cells), strict=True)) for row, *cells in rows}


def test_the_worst_case_is_over_the_same_source_for_every_target(studied):
    for seed in SEEDS:
        right = results.read_examples(studied.path / f"evaluation/{seed}/examples.parquet", seed=int(seed))[int(seed)]
        for target in ("A", "A_adv", "A_adv-ens"):
            clean, *cells = (
                right[target, source, attack, gradient, 1][1]
                for source, attack, gradient in [("", "clean", ""), *(("B", attack, "exact") for attack in ATTACKS)]
            )
            worst = right[target, "any: unseen by all", "worst_case", "exact", 1][1]
            assert np.array_equal(worst, np.logical_and.reduce([clean, *cells]))


def test_costs_are_those_of_the_trainings_and_of_the_stores(studied, capsys):
    shown = table(studied, capsys, "report/matrix.parquet")
    assert list(shown) == ["A", "A_adv", "A_adv-ens", "A_adv-ens@1"]
    assert list(shown["A"]) == [
        "Clean",
        "worst case from B",
        "own PGD",
        "passes of training",
        "passes of making stores",
        "bytes kept",
    ]
    stores = [read_manifest(studied.path / f"signs/{name}.zarr") for name in "ACD"]
    for target, runs, made in (("A", ["A"], []), ("A_adv", None, []), ("A_adv-ens", None, stores)):
        passes = [
            json.loads((studied.path / f"training/{run}.json").read_text())["passes"]
            for run in runs or [f"{target}-{seed}" for seed in SEEDS]
        ]
        each = [(counted["forward"] + counted["backward"]) / 600 for counted in passes]
        found = shown[target]
        assert float(found["passes of training"]) == pytest.approx(np.mean(each), abs=0.051), target
        assert float(found["passes of making stores"]) == 2 * len(made)
        assert float(found["bytes kept"]) == pytest.approx(sum(store.size for store in made) / 600, abs=0.051)
    assert shown["A"]["passes of training"] == "4", "two epochs of clean images"
    snapshot = {name: shown["A_adv-ens@1"][name] for name in shown["A"] if name.startswith(("passes", "bytes"))}
    assert snapshot == {
        "passes of training": "–",
        "passes of making stores": shown["A_adv-ens"]["passes of making stores"],
        "bytes kept": shown["A_adv-ens"]["bytes kept"],
    }


def test_the_page_the_tables_and_the_figures_have_the_study(studied):
    report = studied.path / "report"
    page = (report / "index.html").read_text()
    assert "Defences and what they cost" in page
    assert "Worst case from B" in page, "a figure's title"
    for name in ("study", "study-compared"):
        assert (report / f"tables/{name}-exact.csv").exists()
        assert (report / f"tables/{name}-exact.tex").exists()
    drawn = (report / "study-cost.svg").read_text()
    assert ">A_adv-ens<" in drawn
    assert ">A_adv-ens@1<" not in drawn, "it is not known what a snapshot cost"


def test_kept_files_alone_give_the_same_study(studied, tmp_path, gradshard):
    kept = tmp_path / "kept"
    for seed in SEEDS:
        shutil.copytree(studied.path / f"evaluation/{seed}", kept / seed)
    shutil.copy(studied.path / "params.yaml", kept)
    assert gradshard(Project(tmp_path), "report", "kept")[0] == 0
    made = files(Project(kept), "report")
    assert {name: text for name, text in made.items() if "study" in name or "costs" in name} == {
        name: text for name, text in files(studied, "report").items() if "study" in name or "costs" in name
    }
    assert "report/costs.json" in made


def test_of_one_seed_the_study_is_made_too(studied, capsys):
    shown = table(studied, capsys, "evaluation/10/matrix.parquet")
    passes = json.loads((studied.path / "training/A_adv-10.json").read_text())["passes"]
    assert shown["A_adv"]["passes of training"] == f"{(passes['forward'] + passes['backward']) / 600:g}"


def test_results_of_before_costs_were_written_have_the_study_without_them(studied, tmp_path, capsys):
    older = studied.copy_to(tmp_path / "older")
    for seed in SEEDS:
        (older.path / f"evaluation/{seed}/costs.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(older.path)
        shutil.rmtree(older.path / "report")
        assert call(patch, "report") == 0
    assert not (older.path / "report/costs.json").exists()
    assert not (older.path / "report/study-cost.svg").exists()
    assert list(table(older, capsys, "report/matrix.parquet")["A"]) == ["Clean", "worst case from B", "own PGD"]
