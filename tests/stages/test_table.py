"""Tables of a published run, in every language."""

import csv
import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.storage.formats import results
from tests.helpers.error_matrices import write_results, wrong_images
from tests.helpers.projects import call

RUN = Path(__file__).parents[2] / "results/mnist"
OF_RUN = [str(RUN / "matrix.parquet"), "--params", str(RUN / "params.yaml"), "--gradient", "cross_entropy"]
TARGETS, SEEDS = ("A_adv", "A_adv-ens"), (10, 11, 12)
FROM = [("B", "fgsm"), ("B2", "fgsm")]


@pytest.fixture
def table(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; gives the exit code, what it printed, and what it said."""

    def run(*options):
        monkeypatch.chdir(tmp_path)
        code = call(monkeypatch, "table", *OF_RUN, *options)
        return code, *capsys.readouterr()

    return run


def test_one_table_has_the_same_figures_in_every_language(table):
    code, markdown, _ = table()
    assert code == 0
    assert "| A_adv_ce, 12 epochs | **0.7** (paper 0.7, +0.0) |" in markdown
    assert r"A\_adv\_ce, 12 epochs & \textbf{0.7} (paper 0.7, +0.0) &" in table("--format", "latex")[1]
    rows = list(csv.DictReader(io.StringIO(table("--format", "csv")[1])))
    (found,) = [row for row in rows if (row["row"], row["column"]) == ("A_adv_ce, 12 epochs", "Clean")]
    assert (round(float(found["value"]), 1), found["paper"]) == (0.7, "0.7")


def test_any_table_of_the_report_is_made_by_its_name(table):
    assert r"\label{tab:holdouts}" in table("--name", "holdouts", "--format", "latex")[1]
    code, _, said = table("--name", "holdout")
    assert code == 2
    assert "has no table holdout: choose one of transfer-fgsm, " in said
    assert ", defences, holdouts" in said


@pytest.mark.parametrize(("form", "comment"), [("markdown", "<!-- {} -->"), ("latex", "% {}")])
def test_a_table_replaces_what_stands_between_the_marks_of_its_language(table, tmp_path, form, comment):
    begin, end = (comment.format(f"gradshard table: {mark}") for mark in ("begin", "end"))
    paper = tmp_path / "paper"
    paper.write_text(f"before\n{begin}\nold figures\n{end}\nafter\n")
    assert table("--format", form, "--into", "paper")[0] == 0
    assert paper.read_text() == f"before\n{begin}\n{table('--format', form)[1]}{end}\nafter\n"


def test_a_file_that_gets_a_table_keeps_its_place_line_ends_and_mode(table, tmp_path):
    begin, end = (f"<!-- gradshard table: {mark} -->" for mark in ("begin", "end"))
    kept, link = tmp_path / "kept", tmp_path / "paper"
    kept.write_bytes(f"before\r\n{begin}\r\n{end}\r\nafter\r\n".encode())
    kept.chmod(0o600)
    link.symlink_to("kept")
    assert table("--into", "paper")[0] == 0
    text = f"before\n{begin}\n{table()[1]}{end}\nafter\n"
    assert kept.read_bytes() == text.replace("\n", "\r\n").encode()
    assert link.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_keep_the_table_is_left_as_it_is(table, tmp_path):
    paper = tmp_path / "paper"
    paper.write_text("<!-- gradshard table: begin -->\n<!-- gradshard table: end -->\n")
    before = paper.read_text()
    for form, remedy in (("latex", "put the lines % gradshard table: begin"), ("csv", "leave --into out")):
        code, _, said = table("--format", form, "--into", "paper")
        assert (code, said.count("\n")) == (2, 1)
        assert remedy in said
    assert paper.read_text() == before


def test_a_file_that_is_not_there_is_told_to_be_missing(table, tmp_path):
    code, _, said = table("--into", "nope.md")
    assert (code, said.count("\n")) == (2, 1)
    assert f"there is no file {tmp_path / 'nope.md'}: write it, with the lines <!-- gradshard table: begin -->" in said


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("{begin}\nold\n{end}\nprose\n{begin}\nold\n{end}\n", "has the line {begin} 2 times and {end} 2 times"),
        ("{begin}\nold\nprose\n{begin}\nold\n{end}\n", "{begin} 2 times and {end} 1 times"),
        ("{end}\nprose\n{begin}\n", "the first before the second"),
        ("It stands between `{begin}` and `{end}`.\n", "has no place for a table"),
    ],
)
def test_a_file_whose_marks_are_no_pair_of_lines_is_left_as_it_is(table, tmp_path, text, saying):
    begin, end = (f"<!-- gradshard table: {mark} -->" for mark in ("begin", "end"))
    paper = tmp_path / "paper"
    paper.write_text(text.format(begin=begin, end=end))
    before = paper.read_bytes()
    code, _, said = table("--into", "paper")
    assert (code, said.count("\n")) == (2, 1)
    assert saying.format(begin=begin, end=end) in said
    assert paper.read_bytes() == before


def test_marks_that_prose_speaks_of_are_passed_over_and_other_encodings_refused(table, tmp_path):
    begin, end = (f"<!-- gradshard table: {mark} -->" for mark in ("begin", "end"))
    paper, latin = tmp_path / "paper", tmp_path / "latin"
    paper.write_text(f"Between `{begin}` and `{end}`:\n{begin}\nold\n{end}\n")
    assert table("--into", "paper")[0] == 0
    assert paper.read_text() == f"Between `{begin}` and `{end}`:\n{begin}\n{table()[1]}{end}\n"
    latin.write_bytes(f"r\xe9sum\xe9\n{begin}\n{end}\n".encode("latin-1"))
    code, _, said = table("--into", "latin")
    assert code == 2
    assert "latin is not UTF-8, so no table is put into it: convert it first" in said


@pytest.fixture
def made_up(tmp_path, monkeypatch, capsys):
    """Results of three seeds beside a parameter file; gives the table of a name for some seeds of it."""
    wrong = {(target, "", "clean"): wrong_images([0.1, 0.2, 0.3], 1) for target in TARGETS}
    wrong |= {
        (target, source, attack): wrong_images([0.4, 0.5, 0.6], 2) for target in TARGETS for source, attack in FROM
    }
    write_results(tmp_path, wrong, SEEDS)
    monkeypatch.chdir(tmp_path)
    params = YAML(typ="safe").load(profiles()["mnist5k"])
    params["static"]["B2"] = params["static"]["A"] | {"seed": 9}
    params["evaluation"] |= {
        "targets": list(TARGETS),
        "battery": {"sources": ["B", "B2"], "attacks": ["fgsm"], "own": []},
    }

    def run(matrix, seeds, *options):
        with Path("params.yaml").open("w") as file:
            YAML().dump(params | {"seeds": seeds}, file)
        code = call(monkeypatch, "table", matrix, *options)
        return code, *capsys.readouterr()

    return run


def test_a_table_is_of_the_seeds_that_the_parameters_list_and_of_no_others(made_up):
    results.write_matrix(
        Path("all.parquet"), [row for seed in SEEDS for row in results.read_matrix(Path(f"{seed}/matrix.parquet"))]
    )
    assert "| A_adv, 6 epochs | **20.0** |" in made_up("all.parquet", [11])[1]
    assert "| A_adv, 6 epochs | 15.0 ± 7.1 |" in made_up("all.parquet", [10, 11])[1]
    code, _, said = made_up("all.parquet", [3])
    assert code == 2
    assert "has results of the seeds 10, 11, 12, and none of 3: name the parameters" in said


def test_of_one_seed_the_study_has_the_columns_that_it_has_in_the_report(made_up):
    head, _, row, *_ = made_up("10/matrix.parquet", [10], "--name", "study")[1].splitlines()
    assert head == "| target | Clean | worst case from B | worst case from B2 |"
    assert row.startswith("| A_adv |")
