"""Profiles: ``python -m pipeline use NAME`` makes one the active ``params.yaml``; without a name it lists them."""

import sys
from importlib.resources import files
from pathlib import Path

import click

from pipeline.params import FILE_NAME, read_params
from storage.errors import GradshardError
from storage.files import write_text


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The pipeline's profiles: ready-made parameter files."""


@cli.command()
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Replace params.yaml even if it holds edits that are in no profile.")
def use(name: str | None, force: bool) -> None:
    """Make the profile NAME the active params.yaml; without NAME, list the profiles and mark the active one."""
    texts, active = profiles(), _active_text()
    if name is None:
        for profile, text in texts.items():
            click.echo(f"{'*' if text == active else ' '} {profile}")
        if active is not None and active not in texts.values():
            click.echo(f"* {FILE_NAME} is none of them: it was edited")
        return
    if name not in texts:
        raise GradshardError(f"no profile {name}: there are {', '.join(texts)}")
    if active is not None and active not in texts.values() and not force:
        raise GradshardError(
            f"{FILE_NAME} holds edits that are in no profile: save it under another name, or replace it with --force"
        )
    write_text(Path(FILE_NAME), texts[name])
    read_params(Path(FILE_NAME))
    click.echo(f"{FILE_NAME} is now the profile {name}: run `dvc repro`")


def profiles() -> dict[str, str]:
    """The text of every profile, by name."""
    folder = files("pipeline.profiles")
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name.removesuffix(".yaml"))
        if entry.name.endswith(".yaml")
    }


def _active_text() -> str | None:
    path = Path(FILE_NAME)
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> None:
    """Run the command line; a mistake of the user's is told in one sentence, with exit code 2."""
    try:
        cli()
    except GradshardError as error:
        click.echo(f"pipeline: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
