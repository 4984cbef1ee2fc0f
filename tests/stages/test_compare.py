"""Two models of a published run, compared by the command."""

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gradshard.pipeline.config.profiles import profiles
from tests.helpers.projects import call

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results/mnist5k"
OF_RUN = [str(RUN / "report/matrix.parquet"), "A_adv-ens", "A_adv", "--params", str(RUN / "params.yaml")]


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; gives the exit code, what it printed, and what it said."""

    def run(*options, of=OF_RUN):
        monkeypatch.chdir(tmp_path)
        code = call(monkeypatch, "compare", *of, *options)
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
def other(tmp_path):
    """A copy of a published run, for what is changed there."""
    (tmp_path / "other/report").mkdir(parents=True)
    for name in ("params.yaml", "report/matrix.parquet", "report/examples.parquet", "report/provenance.json"):
        shutil.copy(RUN / name, tmp_path / "other" / name)
    return tmp_path / "other"


def other_run(folder, *, params="params.yaml"):
    return "--other-run", str(folder / "report/matrix.parquet"), str(folder / params)


def rewrite(folder, change):
    """Change the record of digests."""
    file = folder / "report/provenance.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def replaced(table, column, change):
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(place), pa.array(map(change, table[column].to_pylist())))


def test_a_target_of_another_run_is_compared_as_one_of_the_same(compare, other):
    on = ("--on", "B:fgsm", "--on", "own:fgsm")
    alone, together = compare(*on)[1].splitlines(), compare(*on, *other_run(other))[1].splitlines()
    assert [line for line in together if line.startswith("|")] == [line for line in alone if line.startswith("|")]
    assert "over the 5 seeds of training that two runs share, in this run the same static models" in together[-1]


def test_of_runs_with_other_seeds_the_shared_ones_are_shown_and_compared(compare, other):
    parameters = other / "params.yaml"
    parameters.write_text(re.sub(r"^seeds: .*", "seeds: [11, 12, 13]", parameters.read_text(), flags=re.MULTILINE))
    on = ("--on", "B:fgsm", "--on", "own:fgsm")
    fewer = [str(other / "report/matrix.parquet"), *OF_RUN[1:3], "--params", str(parameters)]
    together = compare(*on, *other_run(other))[1].splitlines()
    alone = compare(*on, of=fewer)[1].splitlines()
    assert [line for line in together if line.startswith("|")] == [line for line in alone if line.startswith("|")]
    assert "over the 3 seeds of training that two runs share" in together[-1]


def test_targets_of_one_name_in_two_runs_are_told_apart(compare, other):
    code, printed, _ = compare("--on", "B:fgsm", *other_run(other), of=[OF_RUN[0], "A_adv", *OF_RUN[2:]])
    assert code == 0
    assert "| A_adv | A_adv of the other run |" in printed
    assert "| +0.0 " in printed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda record: record["dataset"].update(test="0" * 64), "they are of different test images"),
        (
            lambda record: record["models"].update(B="0" * 64),
            "FGSM from B cannot be compared: B is not the same model",
        ),
        (lambda record: record["params"]["robust"].update(Z={}), "name other models under robust than its provenance"),
        (lambda record: record["params"]["stand_ins"].update({"11": {}}), "name other models under stand_ins"),
        (lambda record: record["params"]["stand_ins"].update({"10": {"B": "B-2"}}), "other models under stand_ins"),
        (lambda record: record.update(attacks={"fgsm": "0" * 64}), "fgsm was not the same attack in both runs"),
        (lambda record: record.clear(), "does not say which test images it is of"),
        (lambda record: record.update(dataset=None), "does not say which test images it is of"),
        (lambda record: record.update(models=[]), "B is not the same model in the runs of seed 10"),
    ],
)
def test_runs_that_share_no_images_sources_or_attacks_are_not_compared(compare, other, change, sentence):
    rewrite(other, change)
    code, printed, said = compare("--on", "B:fgsm", *other_run(other))
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert sentence in said


@pytest.mark.parametrize(("column", "value"), [("eps", 0.2), ("label", "least_likely")])
def test_a_row_of_another_strength_or_label_is_not_compared(compare, other, column, value):
    for name in ("matrix.parquet", "examples.parquet"):
        file = other / "report" / name
        table = pq.read_table(file)
        pq.write_table(replaced(table, column, lambda found: found and value), file)
    code, printed, said = compare("--on", "B:fgsm", *other_run(other))
    assert (code, printed) == (2, "")
    assert "fgsm was not the same attack in both runs (by its eps, alpha, steps, restarts, label or code)" in said


def test_what_is_not_compared_need_not_be_shared(compare, other):
    rewrite(other, lambda record: record["models"].update(B="0" * 64))
    rewrite(other, lambda record: record["params"]["attack"].update(restarts=9))
    assert compare("--on", "own:fgsm", "--on", "clean", *other_run(other))[0] == 0


def test_without_a_choice_rows_that_are_not_shared_are_left_out_and_told(compare, other):
    rewrite(other, lambda record: record["models"].update(B="0" * 64))
    code, printed, said = compare(*other_run(other))
    assert code == 0
    assert "| own FGSM |" in printed
    assert " from B |" not in printed
    assert "left out: FGSM from B: B is not the same model in the runs of seed 10" in said


def test_without_its_digests_another_run_is_not_compared(compare, other):
    (other / "report/provenance.json").unlink()
    code, printed, said = compare("--on", "B:fgsm", *other_run(other))
    assert (code, printed) == (2, "")
    assert "provenance.json, whose digests tell what two runs share" in said


@pytest.mark.parametrize("run", ["mnist/random", "mnist/random-12", "mnist/exact", "mnist5k/random-epsilon"])
def test_the_comparison_that_the_page_of_a_published_run_shows_is_the_one_that_its_command_makes(
    monkeypatch, tmp_path, run
):
    page = ROOT / "results" / run / "README.md"
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text())
    (line,) = re.findall(r"^gradshard (compare .*) --into .*$", page.read_text(), flags=re.MULTILINE)
    monkeypatch.chdir(ROOT)
    assert call(monkeypatch, *shlex.split(line), "--into", str(copy)) == 0
    assert copy.read_text() == page.read_text()


def test_parameters_that_lack_a_target_of_the_matrix_are_refused(compare, tmp_path):
    foreign = tmp_path / "params.yaml"
    foreign.write_text(profiles()["mnist5k"].replace("A_adv-ens", "A_adv-two"))
    code, _, said = compare(of=[*OF_RUN[:3], "--params", str(foreign)])
    assert code == 2
    assert "has the target A_adv-ens, which the parameters do not have: name the parameters that it came" in said


def test_what_one_run_did_not_measure_is_said_to_be_that(compare, other):
    file = other / "report/matrix.parquet"
    table = pq.read_table(file)
    pq.write_table(table.filter(pc.not_equal(table["attack"], "ifgsm")), file)
    code, _, said = compare("--on", "B:ifgsm", *other_run(other))
    assert code == 2
    assert "did not measure A_adv under ifgsm" in said or "did not measure A_adv_ce under ifgsm" in said
