"""Digests, by which outputs identify what they were made from."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no whitespace: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Mapping[str, object]) -> str:
    """Return the SHA-256, in hex, of a mapping's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RowsDigest:
    """Digest of the content and order of labelled images, whatever the batches or the storage layout.

    It is the SHA-256 of the canonical JSON ``{"classes": ..., "shape": [C, H, W]}`` followed by, for every row in
    order, the SHA-256 of the row's image bytes (uint8, C order) and its label (8 bytes, little-endian, signed).
    """

    def __init__(self, *, sample_shape: tuple[int, ...], classes: int) -> None:
        header = {"classes": classes, "shape": list(sample_shape)}
        self._sha256 = hashlib.sha256(canonical_json(header).encode())

    def update(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """Add rows: images uint8 (n, C, H, W) and labels (n,)."""
        self.update_hashed(row_hashes(images, labels))

    def update_hashed(self, hashes: bytes) -> None:
        """Add rows by their ``row_hashes``."""
        self._sha256.update(hashes)

    def hexdigest(self) -> str:
        """Return the digest of the rows so far, in hex."""
        return self._sha256.hexdigest()


def row_hashes(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> bytes:
    """Hash rows as ``RowsDigest`` takes them, 32 bytes each; images uint8 (n, C, H, W) and labels (n,)."""
    flat = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    label_bytes = labels.astype("<i8").view(np.uint8).reshape(len(labels), 8)
    rows = zip(flat, label_bytes, strict=True)
    return b"".join(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in rows)


def holds_digests(path: Path) -> bool:
    """Tell whether a file is a JSON object of names and their SHA-256 digests, in hex."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and all(
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in found.values()
    )
