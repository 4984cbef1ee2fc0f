"""The command ``init``: a user's own project in any folder, which runs the installed gradshard through DVC."""

import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import FILE_NAME, read_params
from gradshard.stages.project.new_project import CODE_LINK, check_project, link_code, project_dvc_text
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_bytes, write_text
from gradshard.storage.home import path_of

_DEFAULT = "mnist5k"
_TEMPLATES = files("gradshard.stages.project") / "template"
_IGNORE_FILES = {".gitignore": "gitignore", ".dvcignore": "dvcignore"}


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--profile", "name", help=f"The profile to begin with; default: {_DEFAULT}.")
def command(folder: Path, name: str | None) -> None:
    """Make a project in FOLDER, by default the current folder: params.yaml, dvc.yaml, ignore files and a README.

    The folder becomes a git and DVC repository if it is not one yet. Existing files are never overwritten. In a clone
    of such a project, `gradshard init` makes the link to the installed code, by which DVC sees what an upgrade changed.
    `gradshard profile` lists the profiles.
    """
    if name is not None and name not in profiles():
        raise GradshardError(f"no profile {name}: there are {', '.join(profiles())}")
    _check_dvc()
    if (folder / "dvc.yaml").exists():
        _renew(folder, name)
        return
    kept = _kept_params(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    link_code(folder)
    _make_repository(folder)
    for target, template in _IGNORE_FILES.items():
        _add_lines(folder / target, (_TEMPLATES / template).read_text(encoding="utf-8"))
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", (_TEMPLATES / "README.md").read_text(encoding="utf-8"))
    if not kept:
        write_text(folder / FILE_NAME, profiles()[name or _DEFAULT])
    # Written last: it makes the folder a project.
    write_text(folder / "dvc.yaml", project_dvc_text())
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    parameters = f"the {FILE_NAME} that was there" if kept else f"the profile {name or _DEFAULT}"
    images = _missing_images(folder)
    first = f"put {images} there, as `gradshard docs datasets` has it, then " if images else ""
    click.echo(f"{folder}: a project with {parameters}; {first}run it with `{there}dvc repro`")


def _missing_images(folder: Path) -> str | None:
    """Return the path at which a project's parameters expect images, if these are missing."""
    path = read_params(folder / FILE_NAME).dataset.path
    return None if path is None or (folder / path_of(path)).exists() else path


def _renew(folder: Path, name: str | None) -> None:
    """Make the link in a clone of a project; refuse a dvc.yaml that gradshard did not write."""
    check_project(folder)
    if name is not None:
        raise GradshardError(f"{folder} is a project already: switch its parameters with `gradshard profile {name}`")
    if not (folder / CODE_LINK).is_symlink():
        raise GradshardError(f"{folder / 'dvc.yaml'} is there and is not gradshard's: make the project in a new folder")
    click.echo(f"{folder}: a project already; {CODE_LINK} leads to the installed gradshard")


def _kept_params(folder: Path, name: str | None) -> bool:
    """Tell whether the folder has parameters, which are kept; refuse invalid ones, and another profile beside them."""
    path = folder / FILE_NAME
    if not path.exists():
        return False
    if name is not None:
        raise GradshardError(f"{path} is there: move it away, or leave --profile out to keep it")
    try:
        read_params(path)
    except GradshardError as error:
        raise GradshardError(f"{error}; it would be kept, so mend it or move it away") from error
    return True


def _check_dvc() -> None:
    if find_spec("dvc") is None:
        raise GradshardError("a project needs DVC: install it with `pip install 'gradshard[dvc]'`")


def _make_repository(folder: Path) -> None:
    """Make the folder a git repository, if git is installed, and a DVC repository."""
    if (folder / ".dvc").is_dir():
        return
    dvc = [sys.executable, "-m", "dvc"]
    if shutil.which("git") is None:
        _run([*dvc, "init", "--no-scm", "--quiet"], folder)
    else:
        if _run(["git", "rev-parse", "--is-inside-work-tree"], folder, check=False) != 0:
            _run(["git", "init", "--quiet"], folder)
        top = (folder / ".git").exists()
        _run([*dvc, "init", "--quiet", *([] if top else ["--subdir"])], folder)
    # Outputs are large and never changed in place: one copy on the disk, shared with DVC's cache, is enough.
    _run([*dvc, "config", "--quiet", "cache.type", "hardlink,copy"], folder)


def _run(command: list[str], folder: Path, *, check: bool = True) -> int:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise GradshardError(f"`{' '.join(command)}` failed in {folder}: {' '.join(done.stderr.split())[-300:]}")
    return done.returncode


def _add_lines(path: Path, wanted: str) -> None:
    # In bytes: the lines that are there may have any encoding and line ends.
    there = path.read_bytes() if path.exists() else b""
    missing = [line for line in wanted.encode().splitlines() if line not in there.splitlines()]
    if missing:
        separator = b"" if not there or there.endswith(b"\n") else b"\n"
        write_bytes(path, there + separator + b"\n".join(missing) + b"\n")
