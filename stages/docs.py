"""The command ``docs``: the documentation of the installed version, page by page, also without network."""

import re
from importlib.resources import files

import click

from gradshard.pipeline.config.errors import did_you_mean
from gradshard.storage.errors import GradshardError


@click.command()
@click.argument("page", required=False)
def command(page: str | None) -> None:
    """Show a page of the documentation, or list all pages.

    PAGE is a name such as datasets or docs/datasets.md, as in the comments of params.yaml and in messages;
    docs/sign-store.md#attacks shows one section of a page. Without PAGE, all pages are listed.
    """
    pages = _pages()
    name, _, anchor = (page or "").removeprefix("docs/").partition("#")
    name = name.removesuffix(".md").lower()
    if not name:
        width = max(map(len, pages))
        click.echo("\n".join(f"{name:{width}}  {_title(text)}" for name, text in pages.items()))
        return
    if name not in pages:
        raise GradshardError(f"no page {name} in the documentation{did_you_mean(name, list(pages))}")
    click.echo_via_pager(_section(pages[name], name, anchor) if anchor else pages[name])


def _pages() -> dict[str, str]:
    """Return the text of every page, in Markdown, by its name."""
    folder = files("gradshard") / "docs"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".md")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".md"): entry.read_text(encoding="utf-8") for entry in found}


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")


def _section(text: str, name: str, anchor: str) -> str:
    """Return the section of an anchor, with its subsections."""
    headings = [(len(found[1]), found[2], found.start()) for found in _headings(text)]
    anchors = [_anchor(title) for _, title, _ in headings]
    if anchor not in anchors:
        raise GradshardError(f"no section {anchor} in the page {name}{did_you_mean(anchor, anchors[1:])}")
    at = anchors.index(anchor)
    level, _, start = headings[at]
    end = next((place for depth, _, place in headings[at + 1 :] if depth <= level), len(text))
    return text[start:end]


def _headings(text: str) -> list[re.Match[str]]:
    """Find the headings, but not the comments in code blocks that look like them."""
    blocks = [found.span() for found in re.finditer(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)]
    found = re.finditer(r"^(#+) (.+)$", text, flags=re.MULTILINE)
    return [heading for heading in found if not any(start < heading.start() < end for start, end in blocks)]


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as on GitHub and on the site."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())
