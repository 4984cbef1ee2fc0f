"""Stores that are moved: what is in their folders, and what is told of it."""

from pathlib import Path

from gradshard.storage.remote.transfer import pull


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forbidden(text: str) -> None:
    """Fail where another process is waited for and none should be."""
    raise AssertionError(f"waited for process {text}")


def pulled(place, target, digest=None):
    seen = []
    pull(place, target, digest=digest, on_wait=forbidden, advance=seen.append)
    return seen


def one_sentence(code, err):
    """Return what the command line complained about, which is one line and no traceback."""
    assert code == 2, err
    assert err.startswith("gradshard: "), err
    assert err.count("\n") == 1, err
    return err
