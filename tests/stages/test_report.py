"""The report of a folder of kept results, from the files that it keeps."""

import filecmp
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from gradshard.stages.report import command
from gradshard.storage.formats.results import read_matrix
from tests.helpers.projects import Project

ROOT = Path(__file__).parents[2]
FOLDERS = [path.parent.relative_to(ROOT) for path in sorted((ROOT / "results").rglob("params.yaml"))]
WITH_TABLES = [folder for folder in FOLDERS if (ROOT / folder / "report/tables.md").exists()]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Make the report of a folder, once; gives where it is and what was said."""
    made = {}

    def make(folder):
        if folder not in made:
            into = tmp_path_factory.mktemp("reports") / "report"
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(ROOT)
                done = CliRunner().invoke(command, [str(folder), "--into", str(into)], catch_exceptions=False)
            made[folder] = into, done.stderr
        return made[folder]

    return make


def test_there_are_published_results():
    assert (len(FOLDERS), len(WITH_TABLES)) == (21, 20)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_page_of_published_results_is_made_from_what_their_folder_keeps(folder, report):
    into, said = report(folder)
    page = (into / "index.html").read_text()
    assert re.search('<h2 id="(exact|cross-entropy)">', page)
    assert not re.search(r"<tbody>\s*</tbody>", page), "a table without a row is left out"
    told = re.search("keep no files of them: (.*).</p>", page)[1]
    assert f"(without {told}: not in {folder})" in said
    assert {"images", "training curves"} <= set(told.split(", "))
    known = any(any((ROOT / folder).glob(name)) for name in ("provenance.json", "[0-9]*/provenance.json"))
    assert ("digests and versions" in told, "dataset, test images" in page) == (not known, known)
    assert ('id="training"' in page, "(figure 1)" in page) == (False, False)
    for link in re.findall(r'href="([^"]*docs/[^"#]*)', page):
        assert (into / link).exists()


@pytest.mark.parametrize("folder", WITH_TABLES, ids=str)
def test_the_tables_and_the_figure_of_published_results_are_those_that_are_made(folder, report):
    into, _ = report(folder)
    kept = ROOT / folder / "report"
    page = Path("index.html")
    there = {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()}
    names = {path for path in there if path.suffix != ".tex"} - {page}
    made = {path.relative_to(into) for path in into.rglob("*") if path.is_file()}
    tex = {path for path in made if path.suffix == ".tex"}
    tables = {path for path in names if path.parent.name == "tables"}
    assert tex == {path.with_suffix(".tex") for path in tables}, "which no folder keeps"
    assert made - tex == names | {page}
    _, different, unread = filecmp.cmpfiles(kept, into, names, shallow=False)
    assert (different, unread) == ([], [])
    # Of models trained on RAND+FGSM alone there is no table of defences to draw.
    if Path("defences.svg") in made:
        assert (kept / "defences.svg").stat().st_size <= 40_000
        assert "](report/defences.svg)" in (kept.parent / "README.md").read_text()


def test_published_results_of_several_seeds_are_a_folder_for_each(tmp_path):
    published, into = ROOT / "results/cifar10/fixed", tmp_path / "report"
    for seed in ("10", "11"):
        (tmp_path / seed).mkdir()
        for name in ("matrix.parquet", "diagnostics.json"):
            shutil.copy(published / name, tmp_path / seed / name)
    text = (published / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seeds: [10]", "seeds: [10, 11, 12]"))
    done = CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    page = (into / "index.html").read_text()
    assert "over 2 seeds of training, the same static models" in page
    assert "No claim about training" not in page
    assert "VGG_adv, seed 11" in page
    rows = read_matrix(into / "matrix.parquet")
    assert [row["seed"] for row in rows] == [10] * 104 + [11] * 104
    (tmp_path / "params.yaml").write_text(text)
    assert CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False).exit_code == 0
    assert "No claim about training can be made from this page" in (into / "index.html").read_text()


def test_a_folder_without_an_error_matrix_is_no_folder_of_results(tmp_path, gradshard):
    code, said = gradshard(Project(tmp_path), "report", "empty")
    assert code == 2
    assert "empty holds no matrix.parquet: name a folder of kept results" in said
    assert not list(tmp_path.iterdir())
