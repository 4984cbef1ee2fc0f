"""NumPy files of pickled dictionaries of arrays, as converters of models write them, read without running code."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from gradshard.storage.errors import GradshardError

# The callables that make arrays and dtypes; nothing else is called.
_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}


class _ArraysAlone(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, to read which its code would have to run")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickled_arrays(path: Path) -> object:
    """Read a .npy file that holds one pickled object of dictionaries, plain values and arrays.

    Raises:
        GradshardError: the file is missing or damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if shape or dtype != np.dtype(object):
                raise GradshardError(f"{path} holds an array, not a dictionary of weights")
            found = _ArraysAlone(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise GradshardError(f"no file {path}: give the path of one") from error
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, TypeError, IndexError) as error:
        raise GradshardError(f"{path} is no .npy file of plain arrays, or is damaged: {error}") from error
    return found.item() if isinstance(found, np.ndarray) and found.shape == () else found
