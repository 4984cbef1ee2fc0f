"""Downloading a file from one of several mirrors, resumed where a transfer broke off."""

import errno
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock

from gradshard.storage.errors import GradshardError

_BLOCK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0

OnBytes = Callable[[int, int | None], None]


def download(urls: Sequence[str], target: Path, *, check: Callable[[Path], None], on_bytes: OnBytes) -> None:
    """Fetch a file from the first of ``urls`` that delivers it and passes ``check``.

    Received bytes are kept in ``TARGET.part``, so that a second call goes on where the first broke off. A file that
    does not pass the check is deleted, and the next mirror is tried from the start. If another process is fetching the
    same file, it is waited for.

    Args:
        urls: the same file at several mirrors.
        target: where it goes, unless it is there; it appears there only once it is whole and checked.
        check: raises GradshardError if the file is not the right one.
        on_bytes: called with the number of bytes received so far and, if known, the total.

    Raises:
        GradshardError: no mirror delivered the file, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            _from_mirrors(urls, target, check, on_bytes)


def _from_mirrors(urls: Sequence[str], target: Path, check: Callable[[Path], None], on_bytes: OnBytes) -> None:
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            _fetch(url, part, on_bytes)
            check(part)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise GradshardError(
                    f"no space left on the disk ({part}): free some and run the same command again to go on from there"
                ) from error
            failures.append(f"{url}: {error}")
        except GradshardError as error:
            failures.append(f"{url}: {error}")
            part.unlink(missing_ok=True)
        else:
            part.replace(target)
            return
    raise GradshardError(
        f"could not download {target.name} ({'; '.join(failures)}): check the network and run the same command "
        "again to go on, or put the file into a folder and name it with GRADSHARD_DATA"
    )


def _fetch(url: str, part: Path, on_bytes: OnBytes) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return
        raise
    with response:
        if have and response.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                have += len(block)
                on_bytes(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"broke off after {have} of {total} bytes")
