"""The documentation of the installed version, by the command."""

import re
from pathlib import Path

import pytest

from gradshard.stages.docs import _anchor
from tests.helpers.projects import call

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def docs(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; gives the exit code, what it printed, and what it said."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        return call(monkeypatch, "docs", *arguments), *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", [[], [""], ["docs/"]])
def test_without_a_name_every_page_is_listed_with_its_title(docs, name):
    code, printed, _ = docs(*name)
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()] == sorted(page.stem for page in DOCS.glob("*.md"))
    assert re.search(r"^datasets +Datasets$", printed, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["datasets", "datasets.md", "docs/datasets.md", "Datasets"])
def test_a_page_is_shown_by_every_form_of_its_name(docs, name):
    assert docs(name)[:2] == (0, (DOCS / "datasets.md").read_text() + "\n")


def test_a_section_is_shown_up_to_the_next_of_its_level(docs):
    code, printed, _ = docs("docs/statistics.md#two-models-compared")
    assert code == 0
    assert printed.startswith("## Two models compared\n")
    assert printed.count("\n## ") == 0
    assert "--other-run" in printed


def test_every_page_that_parameters_code_and_messages_name_is_shown(docs):
    root = DOCS.parent
    files = [path for room in ("pipeline", "stages", "storage") for path in (root / room).rglob("*.*")]
    named = {
        found
        for path in files
        if path.suffix in (".py", ".yaml")
        for found in re.findall(r"docs/[\w-]+\.md", path.read_text())
    }
    assert len(named) > 10
    assert {name: docs(name)[0] for name in named} == dict.fromkeys(named, 0)


def test_every_section_that_a_page_links_to_is_shown(docs):
    links = {
        f"{target or page.name}#{anchor}"
        for page in DOCS.glob("*.md")
        for target, anchor in re.findall(r"\]\(([\w-]+\.md)?#([\w-]+)\)", page.read_text())
    }
    assert len(links) > 10
    assert {link: docs(link)[0] for link in links} == dict.fromkeys(links, 0)


@pytest.mark.parametrize(
    ("title", "anchor"),
    [("Two models compared", "two-models-compared"), ("`seeds`: a list, at most 3", "seeds-a-list-at-most-3")],
)
def test_a_heading_has_the_anchor_that_github_gives_it(title, anchor):
    assert _anchor(title) == anchor


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("datset", "no page datset in the documentation (did you mean datasets?)"),
        ("datasets#the-digset", "no section the-digset in the page datasets (did you mean the-digest?)"),
    ],
)
def test_a_page_or_section_that_is_not_there_is_told(docs, name, sentence):
    code, printed, said = docs(name)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert sentence in said
