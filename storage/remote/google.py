"""Help that gcsfs, the driver for Google Cloud Storage, needs."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

# It logs the traceback of a connection that failed, which is told in one sentence; whoever sets up logging sees both.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())


def send_to_google(fs: Any, source: Path, path: str) -> None:
    """Copy a file to Google Cloud Storage, whole or not at all.

    gcsfs sends a small file as a part of a multipart message whose closing line it begins by a line feed alone. Where
    the file ends by a carriage return, the two are the line end that belongs to the closing line (RFC 2046, section
    5.1.1), and the server may drop the file's last byte. Such a file is sent as a large one is, in a session.
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
