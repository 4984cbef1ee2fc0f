"""compute_signs with an attack: the store that ``gradshard precompute`` makes of the same entry of params.yaml."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.loading import compute_signs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset import open_dataset
from tests.pipeline.loading.conftest import Digits, files

ENTRIES = {
    "pgd": {"attack": "pgd", "eps": "77/255", "steps": 2, "copies": 2, "seed": 3, "label": "least_likely"},
    "rand": {"attack": "rand_fgsm", "eps": 0.3, "alpha": 0.05, "label": "true", "gradient": "cross_entropy"},
    "mi": {"attack": "mifgsm", "eps": 0.3, "steps": 2, "label": "random", "precision": "bf16", "licence": "MIT"},
    "fgsm": {"attack": "fgsm", "label": "predicted"},
    "di": {"attack": "torchattacks:DIFGSM", "eps": 0.3, "label": "predicted", "arguments": {"steps": 1, "alpha": 0.2}},
}
DI = {"attack": "torchattacks:DIFGSM", "epsilon": 0.3, "arguments": {"steps": 1, "alpha": 0.2, "resize_rate": 0.9}}


@pytest.mark.slow
def test_the_store_is_byte_for_byte_the_one_that_precompute_makes_of_the_same_entry(project, gradshard):
    project.edit(lambda params: params["signs"].update({name: {"model": "A", **e} for name, e in ENTRIES.items()}))
    for arguments in (("prepare",), ("train-static", "A"), *(("precompute", name) for name in ENTRIES)):
        assert gradshard(project, *arguments)[0] == 0
    path = project.path / "models/static/A.safetensors"
    split = open_dataset(project.path / "data/npz.zarr").train
    model = models.load_frozen("D", (1, 28, 28), 10, checkpoints.load(path)[0], where=str(path))
    named = {"name": "npz", "model_name": "A", "architecture": "D", "weights": path}
    for name, entry in ENTRIES.items():
        asked = {"epsilon" if key == "eps" else key: value for key, value in entry.items()}
        store = compute_signs(model, Digits(*split.load()), f"signs/{name}.zarr", **named, **asked)
        assert store.layout.shards > 1
        assert files(project.path / f"signs/{name}.zarr") == files(Path(f"signs/{name}.zarr")), name


def test_an_attack_whose_steps_hardly_reach_half_of_epsilon_is_told(model, rows, caplog):
    images, labels = (part[:64] for part in rows)
    attack = {"attack": "torchattacks:MIFGSM", "epsilon": 0.3}
    compute_signs(model, (images, labels), "signs/far.zarr", **attack, arguments={"steps": 2, "alpha": 0.2})
    assert not caplog.messages
    compute_signs(model, (images, labels), "signs/short.zarr", zero_rows=1, **attack, arguments={"steps": 2})
    (told,) = caplog.messages
    assert "short.zarr: torchattacks:MIFGSM moved " in told
    assert "% of the pixels less than half as far as epsilon allows" in told


class Drawing(Digits):
    """Somebody's dataset that draws from the process's generator, though no pixel follows from it."""

    def __getitem__(self, row):
        for _ in range(300):
            torch.rand(())
        return super().__getitem__(row)


@pytest.mark.parametrize("options", [{"workers": 2}, {"threads": 3}], ids=str)
def test_what_a_seeded_attack_draws_is_its_own_whoever_else_draws(model, rows, options):
    attack = {**DI, "arguments": {**DI["arguments"], "steps": 3}}
    images, labels = (part[:160] for part in rows)
    compute_signs(model, Digits(images, labels), "signs/D.zarr", name="digits", threads=1, **attack)
    compute_signs(model, Drawing(images, labels), "other/D.zarr", name="digits", **options, **attack)
    assert files(Path("other/D.zarr")) == files(Path("signs/D.zarr"))


KILLED = """
import sys
from gradshard.pipeline import models
from gradshard.pipeline.loading import compute_signs
from gradshard.storage.ingest.sources import mnist5k
model = models.create_model("D", (1, 28, 28), 10, seed=0).eval()
def tell(done, total):
    print(done, flush=True)
wanted = {"attack": "pgd", "epsilon": 0.3, "steps": 2, "copies": 2}
compute_signs(model, mnist5k().splits["train"], "signs/D.zarr", on_rows=tell, **wanted)
"""


@pytest.mark.slow
def test_killed_and_begun_again_it_computes_what_is_missing_and_ends_with_the_same_bytes(digits):
    model = models.create_model("D", (1, 28, 28), 10, seed=0).eval()
    wanted = {"attack": "pgd", "epsilon": 0.3, "steps": 2, "copies": 2}
    compute_signs(model, digits["train"], "whole/D.zarr", **wanted)
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    before = [int(process.stdout.readline()) for _ in range(2)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("signs/D.zarr").exists()
    after = []
    compute_signs(model, digits["train"], "signs/D.zarr", on_rows=lambda done, _: after.append(done), **wanted)
    assert files(Path("signs/D.zarr")) == files(Path("whole/D.zarr"))
    assert after[0] > before[1]


def test_a_store_that_is_there_is_opened_and_another_attacks_is_not_written_over(model, base):
    wanted = {"attack": "mifgsm", "epsilon": 0.3, "steps": 2}
    store = compute_signs(model, base, "signs/D.zarr", **wanted)
    untouched = {"on_rows": lambda *_: pytest.fail("computed")}
    assert compute_signs(model, base, "signs/D.zarr", **wanted, **untouched).manifest == store.manifest
    with pytest.raises(GradshardError, match="holds the signs of another model, dataset, gradient or attack"):
        compute_signs(model, base, "signs/D.zarr", **{**wanted, "steps": 3}, **untouched)
    with pytest.raises(GradshardError, match="holds the signs of another model"):
        compute_signs(model, base, "signs/D.zarr", output=lambda z: z * torch.arange(10), **wanted, **untouched)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"attack": "pgdd", "epsilon": 0.3}, r"^compute_signs: attack is pgdd, which is no attack \(did you mean pgd"),
        ({"attack": "pgd", "steps": 2}, "^compute_signs: epsilon is missing, which pgd takes$"),
        ({"attack": "pgd", "epsilon": 0.3}, "^compute_signs: steps is missing, which pgd takes$"),
        ({"attack": "fgsm", "epsilon": 0.3}, r"^compute_signs: epsilon is not for fgsm \(its sign is the same"),
        (
            {"attack": "pgd", "epsilon": 8, "steps": 2},
            r"^compute_signs: epsilon is 8, but pixels lie in \[0, 1\]: if you mean 8 of 255, write 8 / 255$",
        ),
        (
            {"attack": "MIFGSM", "epsilon": 0.3, "steps": 2},
            r"^compute_signs: attack is MIFGSM, .* \(did you mean mifgsm\?\): there are fgsm, .*, torchattacks:NAME, "
            "foolbox:NAME, art:NAME or package.module:function$",
        ),
        (
            {"attack": "torchattacks.MIFGSM", "epsilon": 0.3},
            r"^compute_signs: attack is torchattacks.MIFGSM, which is no attack \(did you mean torchattacks:MIFGSM\?\)",
        ),
        (
            {"attack": "torchattacks:MIFGSM", "epsilon": 0.3, "steps": 10},
            r'^compute_signs: steps is not for torchattacks:MIFGSM, .*: give arguments=\{"steps": 10\}$',
        ),
        (
            {"attack": "torchattacks:CW", "epsilon": 0.3},
            r"^attack \(torchattacks:CW\): it takes no eps, but stores and errors are of moves within",
        ),
        (
            {"attack": "pgd", "epsilon": 0.3, "steps": 2.5},
            "^compute_signs: steps should be a valid integer, but is 2.5",
        ),
        ({"attack": "pgd", "epsilon": 0.3, "steps": 2, "copies": 16}, "copies should be less than or equal to 15"),
        ({"attack": "rand_fgsm", "epsilon": 0.1, "alpha": 0.2}, r"alpha must be below epsilon \(0.1\), but is 0.2"),
        ({"attack": "cw", "epsilon": 0.3, "steps": 2, "label": "random"}, "label is random, a target, which only"),
        ({"attack": "cw", "epsilon": 0.3, "steps": 2, "gradient": "exact"}, "gradient is not for cw, whose loss"),
        ({"attack": "pgd", "epsilon": 0.3, "steps": 2, "arguments": {"a": 1}}, "arguments is for an attack from"),
        ({**DI, "arguments": {"eps": 0.1}}, r"arguments.eps is given by epsilon: remove it"),
        (
            {**DI, "arguments": {"strides": 1}},
            r"^attack \(torchattacks:DIFGSM\): got an unexpected keyword argument 'strides'",
        ),
        ({"attack": "torchattacks:DIFGSMM", "epsilon": 0.3}, r"^attack \(torchattacks:DIFGSMM\)"),
        ({"attack": "nowhere.at_all:pgd", "epsilon": 0.3}, r"^attack \(nowhere.at_all:pgd\)"),
        ({"copies": 2}, "copies is for a store of an attack: name one in attack"),
        ({"label": "random"}, "label is random, a target for an attack"),
        ({"label": "likely"}, "label should be 'predicted', .*, but is 'likely'"),
    ],
    ids=str,
)
def test_wrong_use_is_told_in_one_sentence_before_anything_is_computed(model, base, asked, told):
    with pytest.raises(GradshardError, match=told) as caught:
        compute_signs(model, base, "signs/D.zarr", **asked)
    assert "\n" not in str(caught.value)
    assert not Path("signs").exists()
