"""Two models of a published run, compared by the command."""

import csv
import io
import json
import operator
import shutil
from functools import reduce
from pathlib import Path

import pytest

from tests.helpers.projects import call

RUN = Path(__file__).parents[2] / "results/mnist5k"
OF_RUN = [str(RUN / "report/matrix.parquet"), "A_adv-ens", "A_adv", "--params", str(RUN / "params.yaml")]


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; gives the exit code, what it printed, and what it said."""

    def run(*options):
        monkeypatch.chdir(tmp_path)
        code = call(monkeypatch, "compare", *OF_RUN, *options)
        return code, *capsys.readouterr()

    return run


def test_the_ensemble_errs_less_on_fgsm_from_b_and_more_on_its_own(compare):
    code, text, _ = compare("--on", "B:fgsm", "--on", "own:fgsm", "--format", "csv")
    assert code == 0
    found = {row["row"]: row for row in csv.DictReader(io.StringIO(text)) if row["column"] == "difference in points"}
    assert float(found["FGSM from B"]["high"]) < 0 < float(found["own FGSM"]["low"])
    assert max(float(row["p"]) for row in found.values()) < 0.05
    assert {row["runs"] for row in found.values()} == {"5"}


def test_more_rows_are_corrected_for(compare):
    def p(*options):
        rows = csv.DictReader(io.StringIO(compare("--format", "csv", *options)[1]))
        return next(float(row["p"]) for row in rows if row["row"] == "FGSM from B" and row["p"])

    assert p("--on", "B:fgsm") < p("--on", "B:fgsm", "--on", "clean") < p()


def test_it_is_put_between_the_marks_of_a_file(compare, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- gradshard table: begin -->\n<!-- gradshard table: end -->\nb\n")
    code, _, said = compare("--on", "clean", "--into", "page.md")
    assert code == 0
    assert said.startswith("page.md: A_adv-ens and A_adv of ")
    assert "| Clean | " in page.read_text()


def test_of_one_seed_a_worst_case_is_read_from_the_examples_beside_it(monkeypatch, capsys):
    of_seed = [str(RUN / "10/matrix.parquet"), *OF_RUN[1:]]
    assert call(monkeypatch, "compare", *of_seed, "--on", "B:fgsm,ifgsm") == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| worst case of ")]
    assert row.count("p = ") == 0


def test_a_misspelt_adversary_ends_it_with_one_sentence(compare):
    code, printed, said = compare("--on", "B-fgsm")
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert "'B-fgsm' is no adversary: write clean, own:ATTACK or SOURCE:ATTACK, such as B:fgsm" in said


@pytest.fixture
def two_runs(tmp_path):
    """Two copies of a published run; gives the other's folder, for what is changed there."""
    other = tmp_path / "other"
    (other / "report").mkdir(parents=True)
    for name in ("params.yaml", "report/matrix.parquet", "report/examples.parquet", "report/provenance.json"):
        shutil.copy(RUN / name, other / name)
    return other


def other_run(folder):
    return "--other-run", str(folder / "report/matrix.parquet"), str(folder / "params.yaml")


def test_a_target_of_another_run_is_compared_as_one_of_the_same(compare, two_runs):
    on = ("--on", "B:fgsm", "--on", "own:fgsm")
    assert compare(*on, *other_run(two_runs)) == compare(*on)


def test_targets_of_one_name_in_two_runs_are_told_apart(monkeypatch, capsys, two_runs):
    same = [OF_RUN[0], "A_adv", *OF_RUN[2:]]
    assert call(monkeypatch, "compare", *same, "--on", "B:fgsm", *other_run(two_runs)) == 0
    printed = capsys.readouterr().out
    assert "| A_adv | A_adv of the other run |" in printed
    assert "| +0.0 " in printed


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("dataset", "test"), "0" * 64, "they are of different test images"),
        (("params", "attack", "eps"), 0.2, "their parameters differ in attack: eps"),
        (("models", "B"), "0" * 64, "their B is not the same model in the run of seed 10"),
    ],
)
def test_runs_that_share_no_images_strength_or_sources_are_not_compared(compare, two_runs, place, value, sentence):
    file = two_runs / "report/provenance.json"
    record = json.loads(file.read_text())
    *path, last = place
    reduce(operator.getitem, path, record)[last] = value
    file.write_text(json.dumps(record))
    code, printed, said = compare("--on", "B:fgsm", *other_run(two_runs))
    assert (code, printed) == (2, "")
    assert sentence in said
    if "models" in place:
        assert compare("--on", "own:fgsm", *other_run(two_runs))[0] == 0


def test_without_its_digests_another_run_is_not_compared(compare, two_runs):
    (two_runs / "report/provenance.json").unlink()
    code, printed, said = compare("--on", "B:fgsm", *other_run(two_runs))
    assert (code, printed) == (2, "")
    assert "provenance.json, whose digests tell what two runs share" in said
