"""Models and data as people have them, beyond the usual: they are taken, or refused with one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

import gradshard as gs
from gradshard.pipeline.attacks.autoattack import autoattack
from gradshard.pipeline.gradients.model_checks import as_it_was
from gradshard.pipeline.models.tensors import copied
from gradshard.storage.formats.checkpoints import tensors_digest
from gradshard.storage.formats.sign_reader import open_store

IMAGES = np.random.default_rng(0).integers(256, size=(24, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(24) % 10
PIXELS = torch.from_numpy(IMAGES).float() / 255
TRUE = torch.from_numpy(LABELS)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).eval()


class Centred(nn.Module):
    """A model whose mean is one number that a view repeats."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.5).expand(1, 3, 1, 1))
        self.net = linear()

    def forward(self, x):
        return self.net(x - self.mean)


class Keeping(nn.Module):
    """A model that keeps an activation of its last pass."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(48, 8), nn.Linear(8, 10)

    def forward(self, x):
        self.features = self.first(x.flatten(1))
        return self.last(self.features.relu())


class WithBuffers(nn.Module):
    """A model without parameters, whose weights are a buffer, multiplied as a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", linear()[1].weight.detach().clone())

    def forward(self, x):
        return torch.sparse.mm(self.weight.to_sparse(), x.flatten(1).T).T


class _InFloat32(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.type(torch.float32)).type(x.dtype)


def test_a_buffer_that_a_view_repeats_is_kept_and_digested():
    model = Centred().eval()
    assert gs.fgsm(model, PIXELS, TRUE, epsilon=0.1).shape == PIXELS.shape
    with as_it_was(model, torch.device("cpu")):
        model.mean[:, :1] = 0.25
    assert torch.equal(model.mean, torch.full((1, 3, 1, 1), 0.5))
    assert len(gs.compute_signs(model, (IMAGES, LABELS), "signs/centred.zarr")) == 24
    whole = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert tensors_digest(model.state_dict(), "x") == tensors_digest(whole, "x")


def test_a_model_that_keeps_an_activation_is_copied_and_left_as_it_is():
    model = Keeping().eval()
    kept = model(PIXELS) is not None and model.features
    other = copied(model)
    assert model.features is kept
    assert torch.equal(other(PIXELS), model(PIXELS))
    assert other.first.weight is not model.first.weight
    assert len(gs.compute_signs(model, (IMAGES, LABELS), "signs/keeping.zarr", threads=2)) == 24


def test_a_model_of_buffers_and_sparse_products_is_stored_and_audited_also_under_autocast():
    model, data = WithBuffers().eval(), (IMAGES, LABELS)
    store = gs.compute_signs(model, data, "signs/buffers.zarr")
    assert gs.audit(store, data, model).honest
    with torch.autocast("cpu", torch.bfloat16):
        assert gs.audit(store, data, model).honest


def test_a_model_that_casts_to_float32_itself_cannot_be_held_against_float64():
    model = nn.Sequential(nn.Flatten(), _InFloat32(48), nn.Linear(48, 10)).eval()
    assert len(gs.compute_signs(model, (IMAGES, LABELS), "signs/fp32.zarr")) == 24
    with pytest.raises(gs.GradshardError, match="cannot be computed in float64, with which signs in bf16 are compared"):
        gs.compute_signs(model, (IMAGES, LABELS), "signs/bf16.zarr", precision="bf16")


def test_a_part_in_training_mode_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(48, 10)).eval()
    model[1].train()
    with pytest.raises(gs.GradshardError, match=r"m \(its part 1\) is in training mode"):
        gs.evaluate({"m": model}, PIXELS, TRUE, attacks=["fgsm"], epsilon=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [10, 40])
def test_many_small_steps_in_16_bits_stay_within_epsilon(dtype, steps):
    images = PIXELS.to(dtype)
    moved = gs.iterative_fgsm(linear().to(dtype), images, TRUE, epsilon=8 / 255, steps=steps)
    assert moved.dtype == dtype
    assert float((moved.double() - images.double()).abs().max()) <= 8 / 255 + 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_autoattack_takes_every_dtype(dtype):
    pytest.importorskip("pyautoattack")
    images = PIXELS[:4].to(dtype)
    moved = autoattack(linear().to(dtype), images, TRUE[:4], epsilon=0.1, seed=0)
    assert moved.dtype == dtype
    assert float((moved.double() - images.double()).abs().max()) <= 0.1 + 2 * torch.finfo(torch.bfloat16).eps


def test_a_store_that_appears_while_another_is_computed_is_never_replaced():
    made = []

    def while_it_runs(done, total):
        if not made:
            made.append(gs.compute_signs(linear(1), (IMAGES, LABELS), "signs/race.zarr"))

    with pytest.raises(gs.GradshardError, match="is there already and holds the signs of another model"):
        gs.compute_signs(linear(2), (IMAGES, LABELS), "signs/race.zarr", on_rows=while_it_runs)
    assert open_store(Path("signs/race.zarr")).manifest == made[0].manifest


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"licence": "(MIT AND BSD-3-Clause)"}, r"licence '\(MIT AND BSD-3-Clause\)' is no name for a manifest"),
        ({"model_name": "A²"}, "model_name 'A²' is no name for a manifest"),
        ({"attack": "pgd", "epsilon": 0.1, "seed": 1 << 63}, "seed"),
    ],
)
def test_what_a_manifest_cannot_hold_is_refused_before_the_data_is_read(options, sentence):
    class Unread:
        def __len__(self):
            return 24

        def __getitem__(self, row):
            raise AssertionError("read")

    with pytest.raises(gs.GradshardError, match=sentence):
        gs.compute_signs(linear(), Unread(), "signs/x.zarr", **options)


def test_a_place_where_no_store_can_be_is_refused_first():
    Path("file").touch()
    Path("signs").mkdir()
    Path("signs/link.zarr").symlink_to("nowhere")
    for target, sentence in (("signs/link.zarr", "is a link to nowhere"), ("file/x.zarr", "file is no folder")):
        with pytest.raises(gs.GradshardError, match=sentence):
            gs.compute_signs(linear(), (IMAGES, LABELS), target)


def test_a_file_in_the_place_of_a_cache_is_told():
    gs.compute_signs(linear(), (IMAGES, LABELS), "signs/x.zarr")
    Path("file").touch()
    with pytest.raises(gs.GradshardError, match=r"cannot be written .*: name another folder by cache="):
        gs.SignedDataset((IMAGES, LABELS), "signs/x.zarr", cache="file/sub")


def test_rows_without_numbers_and_passes_without_gradients_are_refused():
    class Stream(IterableDataset):
        def __len__(self):
            return 24

        def __iter__(self):
            return iter(zip(IMAGES, LABELS, strict=True))

    with pytest.raises(gs.GradshardError, match="Stream is no dataset whose rows have numbers"):
        gs.compute_signs(linear(), Stream(), "signs/x.zarr")
    with torch.inference_mode(), pytest.raises(gs.GradshardError, match="signs need gradients"):
        gs.compute_signs(linear(), (IMAGES, LABELS), "signs/x.zarr")


def test_images_in_bfloat16_are_those_in_float32():
    # Of the multiples of 1/255, bfloat16 holds few exactly.
    images = [(torch.from_numpy(image) > 127).bfloat16() for image in IMAGES]
    stores = [
        gs.compute_signs(linear(), list(zip(given, LABELS.tolist(), strict=True)), f"signs/{name}.zarr", model_name="m")
        for name, given in (("bf16", images), ("fp32", [image.float() for image in images]))
    ]
    assert stores[0].manifest.content == stores[1].manifest.content
