import os

import pytest
import torch

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "scalar": torch.tensor(3.0)}
RECORD = {"architecture": "A", "epoch": 3, "nested": {"y": [1, 2], "x": None}}


def test_tensors_and_record_come_back(tmp_path):
    checkpoints.save(tmp_path / "w.safetensors", TENSORS, RECORD)
    tensors, record = checkpoints.load(tmp_path / "w.safetensors")
    assert record == RECORD
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_equal_weights_give_equal_bytes_whatever_the_order(tmp_path):
    checkpoints.save(tmp_path / "one", TENSORS, RECORD)
    checkpoints.save(tmp_path / "two", dict(reversed(TENSORS.items())), dict(reversed(RECORD.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [b"", b"garbage" * 20, None])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is None:
        checkpoints.save(path, TENSORS, RECORD)
        content = path.read_bytes()[:-4]
    path.write_bytes(content)
    with pytest.raises(GradshardError, match="is not a weights file of gradshard, or is damaged"):
        checkpoints.load(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(GradshardError, match=r"no weights at .*missing"):
        checkpoints.load(tmp_path / "missing")


def test_the_digest_tells_models_apart():
    base = checkpoints.tensors_digest(TENSORS, "A")
    assert base == checkpoints.tensors_digest(dict(reversed(TENSORS.items())), "A")
    changed = TENSORS | {"b": TENSORS["b"] + 1e-6}
    renamed = {("c" if name == "b" else name): tensor for name, tensor in TENSORS.items()}
    reshaped = TENSORS | {"b": TENSORS["b"].view(3, 2)}
    others = {checkpoints.tensors_digest(t, "A") for t in (changed, renamed, reshaped)}
    assert len(others | {base, checkpoints.tensors_digest(TENSORS, "B")}) == 5


def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    checkpoints.save(path, TENSORS, RECORD)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(path, {"a": torch.zeros(9)}, RECORD)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_tied_and_channels_last_tensors_come_back(tmp_path):
    tied = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    checkpoints.save(tmp_path / "w", {"a": tied, "b": tied, "count": torch.tensor(7)}, {})
    tensors, _ = checkpoints.load(tmp_path / "w")
    assert torch.equal(tensors["a"], tied)
    assert torch.equal(tensors["b"], tied)
    assert tensors["count"] == 7
