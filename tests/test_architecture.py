"""Imports run one way: stages -> pipeline -> storage; and what must start fast imports nothing heavy."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"storage": set(), "pipeline": {"storage"}, "stages": {"pipeline", "storage"}}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by absolute name"
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", list(MAY_IMPORT))
def test_a_package_imports_only_those_below_it(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        ours = {name for name in imported(path) if name in MAY_IMPORT or name in ("tests", "benchmarks")}
        assert ours <= MAY_IMPORT[package] | {package}, path


def test_every_folder_of_code_is_part_of_the_distribution():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for name in MAY_IMPORT for path in (ROOT / name).rglob("*.py")}
    assert set(listed) == {str(folder).replace("/", ".") for folder in folders} | {"pipeline.profiles"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "import stages.__main__, stages.cli",
            {"torch", "zarr", "numpy", "distributed", "matplotlib", "pyarrow", "pydantic"},
        ),
        ("import pipeline.params", {"torch", "zarr", "distributed", "matplotlib", "pyarrow"}),
        ("import stages.prepare, stages.report", {"torch", "distributed"}),
        ("import stages.train_static", {"distributed", "matplotlib", "mlxtend", "timm", "pyarrow", "PIL"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code, heavy):
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    loaded = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & heavy
