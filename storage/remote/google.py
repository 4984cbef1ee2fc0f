"""Workarounds for gcsfs, the driver for Google Cloud Storage."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

# It logs the traceback of a failed connection, which gradshard reports in one sentence; with logging set up, both show.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())


def send_to_google(fs: Any, source: Path, path: str) -> None:
    """Copy a file to Google Cloud Storage, whole or not at all.

    gcsfs sends a small file as a part of a multipart message whose closing line it begins with a line feed alone. If
    the file ends in a carriage return, the two form the line end that belongs to the closing line (RFC 2046, section
    5.1.1), and the server may drop the file's last byte. Such a file is sent in a session, as large files are.
    """
    if not _ends_by_carriage_return(source):
        fs.put_file(str(source), path)
        return
    with source.open("rb") as content, fs.open(path, "wb", autocommit=False) as target:
        shutil.copyfileobj(content, target)
    target.commit()


def _ends_by_carriage_return(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(1, path.stat().st_size), os.SEEK_END)
        return file.read() == b"\r"
