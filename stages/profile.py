"""The command ``profile``: list the ready-made parameter files, or make one of them the active params.yaml."""

from pathlib import Path

import click

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import FILE_NAME, read_params
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text


@click.command()
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Replace params.yaml even if it holds edits that are in no profile.")
def command(name: str | None, force: bool) -> None:
    """Make the profile NAME the active params.yaml.

    Without NAME, list the profiles and mark the active one.
    """
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
    _echo_what_is_next(name)


def _echo_what_is_next(name: str) -> None:
    if Path("dvc.yaml").exists():
        click.echo(f"{FILE_NAME} is now the profile {name}: run `dvc repro`")
    else:
        click.echo(f"{FILE_NAME} is now the profile {name}; there is no dvc.yaml here: run single stages")


def _active_text() -> str | None:
    path = Path(FILE_NAME)
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except UnicodeDecodeError as error:
        raise GradshardError(f"{path} is not UTF-8: convert it first") from error
