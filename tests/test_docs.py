"""Every command and every code block of the README and the docs runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params, read_params
from gradshard.pipeline.report import export
from gradshard.stages.table import named_table
from gradshard.storage import __version__

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Run by the DVC test (in a project of their own), or by whoever sets up a fresh machine.
ELSEWHERE = ("python3 -m venv", "dvc ")


def blocks(language):
    for page in PAGES:
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL):
            yield page.name, block


COMMANDS = [(name, line) for name, block in blocks("bash") for line in block.splitlines()]


def scripts():
    """The blocks of commands, each without the lines that run elsewhere."""
    for name, block in blocks("bash"):
        lines = [line for line in block.splitlines() if not line.startswith(ELSEWHERE)]
        if lines:
            yield name, "\n".join(lines)


@pytest.fixture
def project(finished_project, tmp_path):
    """A finished project under the names that the docs use."""
    project = finished_project.copy_to(tmp_path / "project")
    (project.path / "data/mnist5k.zarr").symlink_to("npz.zarr")
    shutil.copytree(ROOT / "results", project.path / "results")
    shutil.copy(ROOT / "README.md", project.path)
    return project


@pytest.mark.parametrize(("page", "script"), list(scripts()))
def test_the_commands_of_the_docs_run(project, page, script):
    if "gradshard profile" in script:
        (project.path / "params.yaml").write_text(profiles()["mnist5k"])
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=project.path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}:\n{script}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(("page", "code"), list(blocks("python")))
def test_a_code_block_of_the_docs_runs(project, page, code, monkeypatch):
    monkeypatch.chdir(project.path)
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml")))
def test_the_parameters_of_the_docs_fit_the_schema(page, text):
    def merged(base, change):
        both = {**base, **change}
        return {
            key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
            for key, value in both.items()
        }

    change = YAML(typ="safe").load(text)
    base = YAML(typ="safe").load(profiles()["mnist5k"])
    if "dataset" in change:
        del base["dataset"]
    base["static"] = {key: value for key, value in base["static"].items() if key not in change.get("static", {})}
    check_params(merged(base, change), where=page)


def test_links_between_pages_lead_somewhere():
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for path in re.findall(r"`((?:tests|pipeline|storage|stages|docs)/[\w/]+\.\w+)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_readme_has_one_line_that_runs_and_one_that_tests():
    lines = [line for page, line in COMMANDS if page == "README.md" and "pip install" in line]
    assert [("dvc repro" in line, line.endswith("&& pytest -n auto -m 'not slow'")) for line in lines] == [
        (True, False),
        (False, True),
    ]


def test_every_dvc_command_of_the_docs_is_run_by_the_dvc_test():
    text = (ROOT / "tests/test_dvc.py").read_text()
    for _, command in COMMANDS:
        if command.startswith("dvc "):
            assert f'"{command}"' in text, command


@pytest.mark.parametrize(
    ("folder", "gradient", "models", "pages"),
    [
        ("mnist/seeds", "cross_entropy", 4, ("README.md", "results/mnist/seeds/README.md")),
        ("mnist5k", "exact", 2, ("results/mnist5k/README.md",)),
    ],
)
def test_the_readmes_tables_are_those_of_the_kept_runs_over_five_seeds(folder, gradient, models, pages):
    results = ROOT / "results" / folder
    params = read_params(results / "params.yaml")
    assert len(params.seeds) == 5
    table = export.to_markdown(named_table(results / "report/matrix.parquet", params, gradient))
    rows = [line for line in table.splitlines() if line.startswith("| A_adv") and " ± " in line]
    assert len(rows) == models
    for page in pages:
        assert table in (ROOT / page).read_text()


def test_the_changes_and_the_citation_are_of_this_version():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (__version__, "MIT")
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:1705.07204"
    versions = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions[0] == __version__


def test_a_push_and_a_commit_are_checked_by_the_projects_own_tools():
    workflow = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text())
    assert [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step] == [".ci/run"]
    hooks = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert [hook["entry"].split()[0] for hook in hooks] == ["ruff", "ruff", "mypy"]
