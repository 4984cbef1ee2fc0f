import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

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


STATE = {"layer.weight": torch.rand(3, 2), "layer.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"lr": 0.1}},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {f"_orig_mod.module.{name}": tensor for name, tensor in STATE.items()},
    ],
    ids=["plain", "state_dict", "model", "of DistributedDataParallel", "of torch.compile"],
)
def test_checkpoints_of_the_usual_forms_are_read(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "c.pt")
    found = checkpoints.load_checkpoint(tmp_path / "c.pt")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_safetensors_checkpoint_is_known_by_its_content(tmp_path):
    save_file(STATE, tmp_path / "c.bin")
    assert checkpoints.load_checkpoint(tmp_path / "c.bin").keys() == STATE.keys()


class Bomb:
    """What a pickled file may hold: a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def write_bomb(path):
    torch.save({"state_dict": STATE, "more": Bomb(path.parent / "went-off")}, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (write_bomb, "is no checkpoint of plain tensors, or is damaged"),
        (
            lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "went-off"))),
            "is no checkpoint of plain tensors",
        ),
        (lambda path: path.write_bytes(b""), "is no checkpoint of plain tensors, or is damaged"),
        (lambda path: path.write_bytes(b"\x10" + bytes(7) + b"{not a header"), "is no checkpoint of plain tensors"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and nothing"), "is no checkpoint of plain tensors, or is damaged"),
        (lambda path: torch.save([1, 2], path), r"holds no state_dict: save model\.state_dict\(\)"),
        (lambda path: torch.save({"a": 1}, path), "holds no state_dict"),
        (lambda path: None, "no checkpoint at .*c.pt: give the path of one, seen from the project's root"),
    ],
    ids=["code in it", "bare pickle", "empty", "no header", "no archive", "a list", "numbers", "missing"],
)
def test_what_is_no_checkpoint_is_refused_and_runs_no_code(tmp_path, write, sentence):
    write(tmp_path / "c.pt")
    with pytest.raises(GradshardError, match=sentence) as error:
        checkpoints.load_checkpoint(tmp_path / "c.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "went-off").exists()
