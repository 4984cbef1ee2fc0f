"""The report of several seeds: what it says of two ways of training, and what it leaves unsaid."""

import csv
import io
import re

import numpy as np
import pytest
from click.testing import CliRunner

from gradshard.pipeline.evaluation.seed_variance import training_error_rate
from gradshard.stages.report import command
from gradshard.storage.formats.results import read_examples, read_matrix
from tests.helpers.error_matrices import write_results, wrong_images
from tests.helpers.projects import ROOT, call

# Two defences whose means differ by less than their seeds do, and by far more.
NEAR = [[0.08, 0.16, 0.12], [0.17, 0.11, 0.14]]
FAR = [[0.30, 0.31, 0.30], [0.08, 0.07, 0.09]]
COLUMNS = {("", "clean"): NEAR, ("B", "fgsm"): FAR, ("B", "ifgsm"): FAR, ("B", "rand_fgsm"): NEAR}
CLEAN_CELL = ("A_adv, 6 epochs", "Clean")


@pytest.fixture(params=[2, 3])
def folder(request, tmp_path):
    """Results of the default profile's two defences over some seeds."""
    seeds = range(10, 10 + request.param)
    rates = {
        (target, source, attack): of[number][: len(seeds)]
        for (source, attack), of in COLUMNS.items()
        for number, target in enumerate(("A_adv", "A_adv-ens"))
    }
    wrong = {key: wrong_images(its, noise) for noise, (key, its) in enumerate(rates.items())}
    wrong |= {(name, name, "fgsm"): wrong_images(NEAR[0][: len(seeds)], 99) for name in ("A_adv", "A_adv-ens")}
    wrong["A", "A", "fgsm"] = np.repeat(wrong_images([0.7], 100), len(seeds), axis=0)
    write_results(tmp_path, wrong, seeds)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(re.sub(r"^seeds: \[.*\]", f"seeds: {list(seeds)}", text, flags=re.M))
    return tmp_path


def made(folder):
    done = CliRunner().invoke(command, [str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    return (folder / "report/index.html").read_text()


def seeds_of(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def comparisons(page):
    """The verdict and the p-value by attack, of the table of comparisons."""
    body = page.split("Which way of training errs less, on the same seeds and images")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in body.split("<tr>")[2:]]
    return {attack: (verdict, over) for attack, *_, over, _, verdict in rows}


def test_defences_that_differ_by_less_than_their_seeds_show_no_difference_on_the_page(folder):
    found, over = comparisons(made(folder)), f"{len(seeds_of(folder))} seeds, 2000 images"
    assert found["Clean"] == found["RAND+FGSM from B"] == ("no difference shown", over)
    if len(seeds_of(folder)) > 2:
        assert found["FGSM from B"] == found["I-FGSM from B"] == ("A_adv-ens errs less", over)


def test_the_page_says_what_its_figures_are_over_and_of_one_seed_that_nothing_is_claimed(folder):
    page, seeds = made(folder), seeds_of(folder)
    assert f"<strong>Robust models over {len(seeds)} seeds of training, the same static models</strong>" in page
    assert "No claim about training" not in page
    assert "McNemar" not in page
    (text,) = [line for line in (folder / "params.yaml").read_text().splitlines() if line.startswith("seeds:")]
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace(text, "seeds: [10]"))
    alone = made(folder)
    assert "No claim about training can be made from this page" in alone
    assert "It is over test images alone" in alone
    assert "By 95 % intervals over test images alone: of these trained models" in alone
    assert "Which way of training" not in alone


def test_findings_over_seeds_hold_or_are_not_shown(folder):
    page = made(folder)
    findings = dict(re.findall(r'<tr><th>([^<]*)</th><td>[^<]*</td>\s*<td class="\w*">([^<]*)</td>', page))
    (transferred,) = [said for claim, said in findings.items() if "on examples transferred from B" in claim]
    assert transferred == "not shown", "RAND+FGSM is among them"
    assert ("holds" in findings.values()) == (len(seeds_of(folder)) > 2)


def clean_errors(text):
    """The line of A_adv on clean images, of a table as CSV."""
    (row,) = [row for row in csv.DictReader(io.StringIO(text)) if (row["row"], row["column"]) == CLEAN_CELL]
    return row


def test_tables_have_intervals_for_training_and_are_there_in_latex_too(folder):
    made(folder)
    row = clean_errors((folder / "report/tables/defences-exact.csv").read_text())
    rates = NEAR[0][: len(seeds_of(folder))]
    low, high = training_error_rate(wrong_images(rates, 0)).interval
    assert (float(row["low"]), float(row["high"])) == pytest.approx((100 * low, 100 * high), abs=1e-4)
    assert int(row["runs"]) == len(rates)
    latex = (folder / "report/tables/defences-exact.tex").read_text()
    assert r"\label{tab:defences-exact}" in latex
    assert r"12.0 $\pm$" in latex
    assert f"over {len(rates)} seeds of training" in latex


def test_the_command_table_gives_over_seeds_what_the_report_does(folder, monkeypatch, capsys):
    made(folder)

    def table(form):
        capsys.readouterr()
        options = ("--params", str(folder / "params.yaml"), "--format", form)
        assert call(monkeypatch, "table", str(folder / "report/matrix.parquet"), *options) == 0
        return capsys.readouterr().out

    assert table("csv") == (folder / "report/tables/defences-exact.csv").read_text()
    assert re.search(r"\| A_adv, 6 epochs \| \*\*12\.0 ± \d\.\d\*\* ", table("markdown"))
    (folder / "report/examples.parquet").unlink()
    assert "low" not in {key for key, value in clean_errors(table("csv")).items() if value}
    assert "No interval stands where errors are known by their number alone." in table("markdown")


def test_the_results_of_all_seeds_are_put_together(folder):
    made(folder)
    seeds = seeds_of(folder)
    rows, examples = (
        read_matrix(folder / "report/matrix.parquet"),
        read_examples(folder / "report/examples.parquet", seed=0),
    )
    assert {row["seed"] for row in rows} == set(examples) == set(seeds)
    for row in rows:
        _, correct = examples[row["seed"]][
            tuple(row[name] for name in ("target", "source", "attack", "gradient", "top"))
        ]
        assert (len(correct), int((~correct).sum())) == (row["n"], row["errors"])


def test_results_that_do_not_keep_which_images_were_wrong_have_no_intervals_and_the_page_says_so(folder):
    made(folder)
    (folder / "11/examples.parquet").unlink()
    page = made(folder)
    assert re.search("keep no files of them: intervals for training and paired tests, ", page)
    assert "No interval stands where errors are known by their number alone." in page
    assert "Which way of training" not in page
    row = clean_errors((folder / "report/tables/defences-exact.csv").read_text())
    assert (row["low"], row["bold"], bool(row["deviation"])) == ("", "0", True)
    assert not (folder / "report/examples.parquet").exists(), "nothing is left of seeds that were put together before"


@pytest.mark.slow
def test_a_second_seed_of_a_real_project_is_in_every_part_of_its_report(copied_project, gradshard):
    copied_project.edit(lambda params: params.update(seeds=[10, 11]))
    for model in ("A_adv", "A_adv-ens"):
        assert gradshard(copied_project, "train-robust", model, "--seed", "11")[0] == 0
    for stage in ("evaluate", "analyze", "blackbox"):
        assert gradshard(copied_project, stage, "--seed", "11")[0] == 0
    assert gradshard(copied_project, "report")[0] == 0
    for table, heads in (("gradient-norms", {"A_adv", "A_adv@1"}), ("estimated-gradients", {"A_adv", "A_adv-ens"})):
        with (copied_project.path / f"report/tables/{table}.csv").open() as file:
            assert {row["row"] for row in csv.DictReader(file) if row["runs"] == "2"} == heads
    page = (copied_project.path / "report/index.html").read_text()
    assert page.count("95 % interval for training ") > 50
    assert page.count("no interval, for it is not known which images were wrong") > 10, "of the probes"
    assert {over for _, over in comparisons(page).values()} == {"2 seeds, 120 images"}
    assert ", the same for every seed, p " in page


def test_what_earlier_results_had_and_these_lack_is_removed_and_nothing_of_the_users(folder):
    made(folder)
    into = folder / "report"
    for suffix in (".csv", ".tex"):
        (into / f"tables/study-exact{suffix}").write_bytes((into / f"tables/defences-exact{suffix}").read_bytes())
    (into / "tables/mine.csv").write_text("my,own\n1,2\n")
    for name in ("study-cost.svg", "study-stores.svg"):
        (into / name).write_text("<svg/>")
    (into / "costs.json").write_text("{}")
    made(folder)
    kept = {path.name for path in into.rglob("*") if path.is_file()}
    assert not kept & {"study-exact.csv", "study-exact.tex", "study-cost.svg", "study-stores.svg", "costs.json"}
    assert {"mine.csv", "defences-exact.csv", "defences-exact.tex", "defences.svg"} <= kept
