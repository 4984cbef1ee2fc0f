"""The site's home page, order and reference follow from what is there: README, pages, and the public names."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_REFERENCE = """# Reference

What `import gradshard` makes public, from its docstrings; [api.md](api.md) introduces it.
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages as the README's table names them; what it does not name comes after."""
    named = re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8"))
    pages = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    config.nav = ["index.md", *dict.fromkeys([*(name for name in named if name in pages), *pages]), "reference.md"]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, which is the README, and the reference."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    files.append(File.generated(config, "reference.md", content=_REFERENCE + "\n".join(_entries())))
    return files


def on_page_markdown(markdown: str, files: Files, **_: Any) -> str:
    """Keep of a link to what is no page, such as an example or a published run, its text alone."""

    def kept(link: re.Match[str]) -> str:
        text, target = link.groups()
        return link[0] if ":" in target or files.get_file_from_path(target) else text

    return re.sub(r"(?<!!)\[([^\]\[]+)\]\(([^)#\s]+)(?:#[^)]*)?\)", kept, markdown)


def _entries() -> list[str]:
    """Give the public names as mkdocstrings takes them, a section for each module that they come from."""
    entries = []
    for node in ast.parse((ROOT / "gradshard/__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names if not alias.name.startswith("_")]
            entries += [f"\n## {node.module.split('.')[-1]}\n"] if names else []
            # The attacks are values of one type, whose signature says it all.
            shown = [*names, "Attack"] if node.module == "attacks" else names
            entries += [f"::: gradshard.{node.module}.{name}\n" for name in shown]
    return entries
