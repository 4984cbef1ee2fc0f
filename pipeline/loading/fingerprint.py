"""Tell a dataset that was read once from others without reading it again: by its own state, as it would be pickled.

That is every pixel of a dataset in memory, and the names of the files and the transforms of one on disk. What it does
not see, files that were changed under their names or code that was, a sample of rows is to show.
"""

import hashlib
import marshal
import pickle
from types import FunctionType
from typing import Any

from torch import Tensor

from gradshard.pipeline.loading.rows import Rows


def fingerprint(rows: Rows) -> str | None:
    """Give the digest of a dataset's state, in hex; none if it cannot be pickled.

    Two datasets of equal state may get two fingerprints, such as in two processes, but two that differ never one.
    """
    theirs = getattr(rows.base, "_fingerprint", None)
    base = (type(rows.base).__qualname__, theirs) if isinstance(theirs, str) else rows.base
    sink = _Hashing()
    try:
        _Pickler(sink, protocol=5).dump((base, rows.transform, rows.columns))
    # Whatever a stranger's object does when it is asked for its state.
    except Exception:
        return None
    return sink.sha256.hexdigest()


class _Hashing:
    """A file that keeps only the digest of what is written to it."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return memoryview(content).nbytes


class _Pickler(pickle.Pickler):
    """Takes tensors by their values and not their addresses, and functions without a name by their code."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return _state, (str(obj.dtype), obj.detach().cpu().numpy())
        if isinstance(obj, FunctionType) and "<" in obj.__qualname__:
            cells = tuple(cell.cell_contents for cell in obj.__closure__ or ())
            return _state, (marshal.dumps(obj.__code__), obj.__defaults__, obj.__kwdefaults__, cells)
        return NotImplemented


def _state(*parts: Any) -> tuple[Any, ...]:
    """Stand for what is never made again of its parts."""
    return parts
