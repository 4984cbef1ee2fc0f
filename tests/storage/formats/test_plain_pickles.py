"""Pickled dictionaries of arrays are read, and nothing that would run."""

import os

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.plain_pickles import read_pickled_arrays


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made",)


def test_a_dictionary_of_arrays_is_read(tmp_path):
    written = {"layer/Conv2D": {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "eps": 0.001}}
    np.save(tmp_path / "w.npy", written)
    found = read_pickled_arrays(tmp_path / "w.npy")
    assert found.keys() == written.keys()
    assert np.array_equal(found["layer/Conv2D"]["weights"], written["layer/Conv2D"]["weights"])


def test_code_in_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", {"layer": Runs()})
    with pytest.raises(GradshardError, match=r"w\.npy is no \.npy file of plain arrays.* it holds a posix\.mkdir"):
        read_pickled_arrays(tmp_path / "w.npy")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_what_is_no_such_file_is_told_in_one_sentence(tmp_path, content):
    (tmp_path / "w.npy").write_bytes(content)
    with pytest.raises(GradshardError, match=r"w\.npy is no \.npy file of plain arrays, or is damaged"):
        read_pickled_arrays(tmp_path / "w.npy")


def test_a_plain_array_is_told(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(3))
    with pytest.raises(GradshardError, match="holds an array, not a dictionary of weights"):
        read_pickled_arrays(tmp_path / "w.npy")
