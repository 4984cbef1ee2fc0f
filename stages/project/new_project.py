"""A user's own project: its dvc.yaml, and the link by which DVC sees the installed code.

DVC's stages depend on the folders of gradshard's code. A project reaches them through one link to the installed
package, so that after an upgrade `dvc status` says which outputs are out of date.
"""

import hashlib
import os
import re
from pathlib import Path

import gradshard
from gradshard import storage
from gradshard.stages.project.code import DVC_FILE
from gradshard.storage.errors import GradshardError

CODE_LINK = ".gradshard"
_IN_CHECKOUT, _IN_PROJECT = "{code: .}", f"{{code: {CODE_LINK}}}"
_HEADER = re.compile(r"# Written by `gradshard init` of gradshard (\S+), stages (\w+)\.")


def project_dvc_text() -> str:
    """Return the text of a project's dvc.yaml: ours, with the code behind the link, and a header with our version."""
    header = f"# Written by `gradshard init` of gradshard {storage.__version__}, stages {_stages_digest()}."
    return f"{header}\n{_dvc_text().replace(_IN_CHECKOUT, _IN_PROJECT, 1)}"


def check_project(folder: Path) -> None:
    """Renew the link of a project to the installed code; a folder that is no project is left alone.

    Raises:
        GradshardError: its dvc.yaml was written by a version of gradshard that has other stages.
    """
    path = folder / "dvc.yaml"
    first_line = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    written = _HEADER.fullmatch(first_line)
    if written is None:
        return
    if written[2] != _stages_digest():
        raise GradshardError(
            f"{path} was written by gradshard {written[1]}, whose stages are not those of the installed "
            f"{storage.__version__}: move it away, run `gradshard init`, and carry over what you had changed"
        )
    link_code(folder)


def _dvc_text() -> str:
    return DVC_FILE.read_text(encoding="utf-8")


def _stages_digest() -> str:
    return hashlib.sha256(_dvc_text().encode()).hexdigest()[:12]


def link_code(folder: Path) -> None:
    """Make a project's link to the installed code, or renew one that leads elsewhere.

    Raises:
        GradshardError: something other than a link is in its place.
    """
    link, installed = folder / CODE_LINK, Path(gradshard.__file__).resolve().parent
    if link.is_symlink() and link.resolve() == installed:
        return
    if (link / DVC_FILE.name).is_file() and not link.is_symlink():
        # A copy of the code: DVC makes one where it runs a queued experiment.
        return
    if link.exists() and not link.is_symlink():
        raise GradshardError(f"{link} is in the place of the link to the installed code: move it away")
    temporary = folder / f"{CODE_LINK}-{os.getpid()}"
    temporary.symlink_to(installed, target_is_directory=True)
    temporary.replace(link)
