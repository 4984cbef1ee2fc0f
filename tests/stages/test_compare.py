"""Two models of a published run, compared by the command."""

import csv
import io
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
