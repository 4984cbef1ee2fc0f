"""Somebody else's checkpoints: the usual forms are read, several models in one file are told apart, no code runs."""

import argparse
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.foreign_checkpoints import read_checkpoint

STATE = {"layer.weight": torch.rand(3, 2), "layer.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"lr": 0.1}},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {f"_orig_mod.module.{name}": tensor for name, tensor in STATE.items()},
        {"net": STATE, "epoch": 3, "acc": 0.9},
        {"model_state_dict": STATE, "optimizer_state_dict": {"state": {}, "param_groups": []}},
        {"state_dict_ema": STATE},
        {"state_dict": {f"model.{name}": tensor for name, tensor in STATE.items()} | {"loss.weight": torch.ones(3)}},
        {"state_dict": STATE, "args": argparse.Namespace(lr=0.1, model="r"), "best": np.float64(0.9)},
    ],
    ids=[
        "plain",
        "state_dict",
        "model",
        "of DistributedDataParallel",
        "of torch.compile",
        "net",
        "model_state_dict",
        "state_dict_ema",
        "of Lightning",
        "beside arguments",
    ],
)
def test_checkpoints_of_the_usual_forms_are_read(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)]).tensors
    assert found.keys() - {"loss.weight"} == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_safetensors_checkpoint_is_known_by_its_content(tmp_path):
    save_file(STATE, tmp_path / "c.bin")
    assert read_checkpoint(tmp_path / "c.bin").tensors.keys() == STATE.keys()


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
        (write_bomb, "is no checkpoint of plain tensors: beside them it holds a"),
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
        read_checkpoint(tmp_path / "c.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "went-off").exists()


ZEROS = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_a_prefix_stays_where_the_model_itself_has_it(tmp_path, prefix):
    own = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    torch.save(own, tmp_path / "c.pt")
    assert read_checkpoint(tmp_path / "c.pt", wanted=[set(own)]).tensors.keys() == own.keys()
    torch.save({f"module.{name}": tensor for name, tensor in own.items()}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(own)])
    assert found.tensors.keys() == own.keys()
    assert found.remark == "the weights are taken without the prefix module. of their names"


def test_of_a_plain_one_and_a_moving_average_the_plain_one_is_taken_which_is_told(tmp_path):
    torch.save({"state_dict_ema": ZEROS, "state_dict": STATE}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)])
    assert torch.equal(found.tensors["layer.weight"], STATE["layer.weight"])
    assert found.remark == (
        "the weights under state_dict are taken, and not those under state_dict_ema (static.NAME.weights_key names "
        "others)"
    )
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)], key="state_dict_ema")
    assert torch.equal(found.tensors["layer.weight"], ZEROS["layer.weight"])


def test_two_models_in_one_file_are_refused_by_name_until_one_is_chosen(tmp_path):
    torch.save({"student": STATE, "teacher": ZEROS}, tmp_path / "c.pt")
    with pytest.raises(GradshardError, match=r"several models, under student, teacher: name the .*weights_key"):
        read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)])
    chosen = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)], key="teacher")
    assert torch.equal(chosen.tensors["layer.weight"], ZEROS["layer.weight"])
    with pytest.raises(GradshardError, match="no weights under ema, as weights_key says: it has some under stu"):
        read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)], key="ema")


def test_of_several_the_one_that_fits_is_taken(tmp_path):
    torch.save({"generator": {"layer.scale": torch.ones(2)}, "classifier": STATE}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)])
    assert found.tensors.keys() == STATE.keys()
    assert found.remark == "the weights under classifier are taken"


def test_two_models_under_two_prefixes_are_refused(tmp_path):
    both = {f"student.{name}": t for name, t in STATE.items()} | {f"teacher.{name}": t for name, t in ZEROS.items()}
    torch.save({"state_dict": both}, tmp_path / "c.pt")
    with pytest.raises(GradshardError, match=r"holds several models, named student\.\*, teacher\.\*"):
        read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)])


def test_one_model_that_a_file_holds_twice_is_taken_once(tmp_path):
    twice = {f"{prefix}.{name}": t for prefix in ("module.attacker.model", "module.model") for name, t in STATE.items()}
    torch.save({"model": twice | {"module.normalizer.new_mean": torch.zeros(3)}}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", wanted=[set(STATE)])
    assert torch.equal(found.tensors["layer.weight"], STATE["layer.weight"])
    assert found.remark == "the weights under model are taken, without the prefix module.model. of their names"


def test_an_array_of_jax_is_refused_without_torchs_advice_to_run_code(tmp_path):
    np.save(tmp_path / "w.npy", {"w": np.zeros(3)}, allow_pickle=True)
    with pytest.raises(GradshardError) as refusal:
        read_checkpoint(tmp_path / "w.npy")
    assert str(refusal.value).endswith("(no pickle of torch): save model.state_dict() as safetensors, or by torch.save")


def test_what_would_have_to_run_is_named(tmp_path):
    write_bomb(tmp_path / "c.pt")
    with pytest.raises(GradshardError, match=r"beside them it holds a \S*open, to read which its code would "):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_model_of_torch_jit_is_not_run(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "c.pt")
    with pytest.raises(
        GradshardError, match=r"is a whole model of torch\.jit, to read which its code would have to run"
    ):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (torch.Tensor.to_sparse, "layer.weight is sparse or quantised: save a state_dict of plain tensors"),
        (lambda tensor: tensor.to("meta"), r"layer.weight has no values \(device meta\): save a state_dict of plain"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "layer.weight is sparse or quantised"),
    ],
    ids=["sparse", "meta", "quantised"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_plain_are_refused_by_name(tmp_path, change, told):
    torch.save({name: change(tensor) for name, tensor in STATE.items()}, tmp_path / "c.pt")
    with pytest.raises(GradshardError, match=told):
        read_checkpoint(tmp_path / "c.pt", wanted=[frozenset(STATE)])
