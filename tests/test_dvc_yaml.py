"""The definition of the pipeline: each stage depends on the code and on the parameters that its outputs follow from."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.stages.project.code import code_of

ROOT = Path(__file__).parents[1]
# They name, show or check, but no output follows from them.
WITHOUT_EFFECT = (
    "pipeline/attacks/registry.py",
    "pipeline/config",
    "pipeline/malloc.py",
    "pipeline/plugins.py",
    "pipeline/training/methods/registry.py",
    "pipeline/types.py",
    "stages/cli.py",
    "stages/console",
    "stages/machines",
    "stages/project/code.py",
    "stages/project/new_project.py",
    "stages/project/paths.py",
    "stages/project/strays.py",
    "stages/store/open.py",
    "stages/jobs/model_checks.py",
    "storage/__init__.py",
    "storage/errors.py",
    "storage/home.py",
    "storage/ingest/registry.py",
    "storage/optional.py",
    # What is read of a remote store is held against its manifest.
    "storage/maintenance",
    "storage/remote",
    "storage/workspace.py",
)


# Modules that import others by a name which a table gives.
BY_NAME = {"pipeline/training/methods/making.py": "pipeline/training/methods"}


def definitions():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


@cache
def imported_by(path):
    """The modules of the project that a module imports itself."""
    files = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        names = [name.removeprefix("gradshard.").replace(".", "/") for name in names]
        files += [file for name in names for file in (f"{name}.py", f"{name}/__init__.py")]
    ours = tuple(f"{room}/" for room in ("pipeline", "stages", "storage"))
    return [file for file in files if file.startswith(ours) and (ROOT / file).exists()]


def closure(path):
    """A module and all modules of the project that it imports, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        waiting += imported_by(current)
        if current in BY_NAME:
            waiting += [str(path.relative_to(ROOT)) for path in (ROOT / BY_NAME[current]).glob("*.py")]
    return {path for path in seen if not is_docstring_alone(path)}


def is_docstring_alone(path):
    return path.endswith("__init__.py") and len(ast.parse((ROOT / path).read_text()).body) == 1


def within(module, places):
    return any(module == place or module.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("stage", [name for name in definitions() if name not in ("sources", "digests")])
def test_a_stage_depends_on_the_code_that_its_outputs_follow_from(stage):
    imported, named = closure(f"stages/{stage.replace('-', '_')}.py"), code_of(stage)
    assert [module for module in imported if not within(module, (*named, *WITHOUT_EFFECT))] == []
    assert [place for place in named if not any(within(module, [place]) for module in imported)] == []


@pytest.mark.parametrize(("stage", "work"), [("train-robust", "robust_training"), ("blackbox", "queries")])
def test_a_stage_names_each_strength_of_an_attack_that_it_reads(stage, work):
    text = (ROOT / f"stages/jobs/{work}.py").read_text()
    read = set(re.findall(r"\b(?:params\.)?attack\.(alpha|epsilon|steps|pgd_steps|restarts)\b", text))
    assert {f"attack.{'eps' if name == 'epsilon' else name}" for name in read} <= set(definitions()[stage]["params"])
    assert "alpha" in read


def test_digests_follow_from_one_module():
    assert code_of("sources") == ["stages/sources.py"]
    assert code_of("digests") == ["stages/digests.py"]


def test_the_pipeline_is_150_lines_at_most():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 150


def test_every_stage_says_what_it_does_and_runs_a_command_of_ours():
    for name, stage in definitions().items():
        assert stage["desc"]
        assert stage["cmd"].startswith(f"python -m gradshard {name}")
