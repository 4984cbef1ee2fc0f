"""Imports run one way: stages -> pipeline -> storage; what must start fast imports nothing heavy; docs say so."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"storage": set(), "pipeline": {"storage"}, "stages": {"pipeline", "storage"}}
# Every room may import its own modules and storage.errors; those of pipeline may import pipeline.types.
ROOMS = {
    "storage/formats": {"storage"},
    "storage/ingest": {"storage/formats"},
    "storage/maintenance": {"storage/formats"},
    "storage/remote": {"storage/formats", "storage/maintenance", "storage/workspace"},
    "storage/streaming": {"storage/formats"},
    "storage/workspace": {"storage/formats"},
    "pipeline/analysis": {"pipeline/attacks", "pipeline/gradients"},
    "pipeline/attacks": {"pipeline/gradients", "pipeline/models", "pipeline/plugins", "storage/formats"},
    "pipeline/audit": {"pipeline/attacks", "pipeline/gradients", "pipeline/models", "storage/formats"},
    "pipeline/blackbox": {"pipeline/attacks", "pipeline/gradients", "pipeline/training"},
    "pipeline/config": {
        "pipeline/attacks",
        "pipeline/gradients",
        "pipeline/plugins",
        "pipeline/training",
        "storage/formats",
        "storage/ingest",
    },
    "pipeline/cost_model": {"storage/formats"},
    "pipeline/evaluation": {"pipeline/attacks", "pipeline/gradients"},
    "pipeline/gradients": {"pipeline/models", "storage/formats"},
    "pipeline/loading": {
        "pipeline/attacks",
        "pipeline/config",
        "pipeline/gradients",
        "pipeline/malloc",
        "pipeline/models",
        "pipeline/training",
        "storage/formats",
        "storage/remote",
        "storage/streaming",
        "storage/workspace",
    },
    "pipeline/malloc": set(),
    "pipeline/models": {"pipeline/plugins", "storage/home"},
    "pipeline/plugins": set(),
    "pipeline/report": {"pipeline/attacks", "pipeline/config", "pipeline/evaluation", "pipeline/plugins"},
    "pipeline/training": {
        "pipeline/attacks",
        "pipeline/gradients",
        "pipeline/malloc",
        "pipeline/models",
        "storage/formats",
        "storage/streaming",
    },
    "pipeline/types": set(),
}
PAGE = (ROOT / "docs/architecture.md").read_text()
BY_ALL = {
    "storage": {"storage/errors", "storage/home", "storage/optional"},
    "pipeline": {"storage/errors", "storage/optional", "pipeline/types"},
}
CODE = [path for folder in (*MAY_IMPORT, "benchmarks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
PRODUCT = [
    *(path for path in CODE if "tests" not in path.relative_to(ROOT).parts),
    *(ROOT / "gradshard").glob("*.py"),
    *(ROOT / "examples").rglob("*.py"),
]


def imported(path):
    """Return the dotted names that a module imports, members of packages included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by absolute name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", list(MAY_IMPORT))
def test_a_package_imports_only_those_below_it(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        names = list(imported(path))
        ours = {name.split(".")[1] for name in names if name.startswith("gradshard.")}
        assert ours <= MAY_IMPORT[package] | {package}, path
        assert not [name for name in names if name.split(".")[0] in ("tests", "benchmarks")], path


def room(name):
    """Return the room that a dotted name of ours lies in, such as pipeline/models, or a module beside the rooms."""
    _, package, *rest = name.split(".")
    below = rest and ((ROOT / package / rest[0]).is_dir() or (ROOT / package / f"{rest[0]}.py").exists())
    return f"{package}/{rest[0]}" if below else package


def test_a_room_imports_only_those_that_the_table_allows():
    found = set()
    for path in CODE:
        package, *rest = path.relative_to(ROOT).with_suffix("").parts
        if package not in BY_ALL or rest == ["__init__"]:
            continue
        own = room(".".join(["gradshard", package, *rest]))
        used = {room(name) for name in imported(path) if name.startswith("gradshard.")}
        assert used - {own} <= ROOMS.get(own, set()) | BY_ALL[package], path
        found.add(own)
    assert found - BY_ALL["storage"] == set(ROOMS)


def definitions(path, *kinds):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def begins(node, words):
    return re.match(words, ast.get_docstring(node) or "")


def test_no_docstring_begins_like_a_question():
    asking = r"(?:What|Whether|How|Which|Where|Who|Whose)\b"
    for path in PRODUCT:
        nodes = definitions(path, ast.Module, ast.ClassDef, ast.FunctionDef)
        assert not [node for node in nodes if begins(node, asking)], path


def test_the_docstring_of_a_function_begins_with_a_verb():
    other = r"(?:The|An?|All|Each|Every|Those|One|Two|Both|No|Of|For|In|By|On|At|From|If|As)\b|[^A-Z]|[A-Z][^ a-z]"
    for path in PRODUCT:
        for node in definitions(path, ast.FunctionDef):
            # A property has the name of what it gives.
            if not any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
                assert not begins(node, other), f"{path}: {node.name}"


def test_nothing_is_imported_by_a_bare_name():
    assert len(CODE) > 200
    for path in CODE:
        assert not [name for name in imported(path) if name.split(".")[0] in MAY_IMPORT], path


def test_the_public_package_does_not_import_the_commands():
    for path in sorted((ROOT / "gradshard").glob("*.py")):
        if path.name != "__main__.py":
            assert not [name for name in imported(path) if name.startswith("gradshard.stages")], path


def test_no_test_imports_out_of_another_tests_module():
    for path in (ROOT / "tests").rglob("*.py"):
        # As text, so that code that a test gives to another process counts too.
        assert not re.findall(r"\b(?:from|import) +tests\.(?:\w+\.)*test_\w+", path.read_text()), path


def test_the_package_is_links_to_the_folders_of_code():
    for name in MAY_IMPORT:
        link = ROOT / "gradshard" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_every_folder_of_code_is_part_of_the_distribution():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for name in MAY_IMPORT for path in (ROOT / name).rglob("*.py")}
    assert set(listed) == {f"gradshard.{folder}".replace("/", ".") for folder in folders} | {"gradshard"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "import gradshard.__main__, gradshard.stages.cli",
            {"torch", "zarr", "numpy", "distributed", "matplotlib", "pyarrow", "pydantic"},
        ),
        ("import gradshard.pipeline.config.schema", {"torch", "zarr", "distributed", "matplotlib", "pyarrow"}),
        (
            "from gradshard.stages.cli import cli; [cli.get_command(None, name) for name in cli.list_commands(None)]",
            {"torch", "distributed"},
        ),
        (
            "import gradshard.stages.jobs.static_training",
            {"distributed", "matplotlib", "mlxtend", "timm", "pyarrow", "PIL"},
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code, heavy):
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    loaded = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & heavy


def test_every_path_that_the_page_of_the_architecture_names_exists():
    folders = "pipeline|stages|storage|gradshard|tests|benchmarks|results|docs|[.]github|[.]ci"
    named = re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]*\w|dvc\.yaml|params\.yaml|CONTRIBUTING\.md)", PAGE)
    assert len(named) > 100
    tree = [line.split(maxsplit=1) for line in PAGE.split("```text\n")[1].split("```")[0].splitlines() if line]
    named += [place + name for place, what in tree for name in re.findall(r"(?<![\w/])\w+\.(?:py|html)\b", what)]
    assert [path for path in dict.fromkeys(named) if not (ROOT / path).exists()] == []


def test_the_page_of_the_architecture_shows_every_folder_of_code():
    folders = {path.parent.relative_to(ROOT) for name in MAY_IMPORT for path in (ROOT / name).rglob("__init__.py")}
    missing = [folder for folder in folders if not re.search(rf"^{folder}/ ", PAGE, flags=re.MULTILINE)]
    assert {str(folder) for folder in missing} <= {"pipeline", "storage"}


def test_the_page_of_the_architecture_has_the_table_of_imports_and_answers_23_questions():
    imports, answers = (part.split("| --- | --- |\n")[1].split("\n\n")[0] for part in PAGE.split("\n## ")[3:5])
    rows = re.findall(r"\| `(.*)` \| (.*) \|", imports.replace(".py", ""))
    assert {room: set(re.findall(r"`([^`]+)`", may)) for room, may in rows} == ROOMS
    assert len(answers.splitlines()) == 23
    assert all("`" in line.split(" | ")[1] for line in answers.splitlines())
