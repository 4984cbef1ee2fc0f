"""A dataset with signs that was copied, pickled, or made of arrays that others hold; and caches that others wrote."""

import copy
import pickle

import numpy as np
import pytest
from filelock import FileLock
from torch.utils.data import DataLoader

from gradshard.pipeline.loading import SignedDataset, compute_signs
from gradshard.pipeline.loading.places import locked
from gradshard.pipeline.loading.planes_file import planes_file
from gradshard.storage.errors import GradshardError

PGD = {"attack": "pgd", "epsilon": 0.3, "steps": 1}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda signed: pickle.loads(pickle.dumps(signed))])
def test_a_copy_of_a_dataset_tells_its_own_workers_the_epoch(model, rows, again):
    first = tuple(part[:20] for part in rows)
    signed = again(SignedDataset(first, compute_signs(model, first, "P.zarr", copies=2, **PGD)))
    loader = DataLoader(signed, batch_size=20, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(3):
        signed.set_epoch(epoch)
        ((_, _, signs),) = list(loader)
        seen.append(signs.numpy().tobytes())
    assert seen[0] == seen[2] != seen[1]


def test_arrays_that_are_views_are_read_and_never_written(rows, model):
    images, labels = rows
    mirrored = images[..., ::-1]
    signed = SignedDataset((mirrored, labels), compute_signs(model, (mirrored, labels), "M.zarr"))
    assert np.array_equal(signed[3][0].numpy(), mirrored[3])
    own = images.copy()
    before = own.copy()
    SignedDataset((own, labels), compute_signs(model, (own, labels), "O.zarr"))[0][0].zero_()
    assert np.array_equal(own, before)


def test_signs_of_another_store_are_told_by_their_planes(model, rows):
    first = tuple(part[:20] for part in rows)
    random = {"attack": "rand_fgsm", "epsilon": 0.3, "alpha": 0.1}
    stores = {"plain": compute_signs(model, first, "A.zarr"), "random": compute_signs(model, first, "R.zarr", **random)}
    signed = SignedDataset(first, stores)
    images, _, signs = next(iter(DataLoader(signed, batch_size=4)))
    images = images.float() / 255
    assert signed.perturb(images, signs["random"], 0.3, source="random").shape == images.shape
    with pytest.raises(GradshardError, match="the signs have 4 planes a row, but those of plain have 2: name"):
        signed.perturb(images, signs["random"], 0.3, source="plain")


@pytest.mark.timeout(60)
def test_a_whole_file_of_signs_is_read_without_the_lock_that_others_may_hold(store, tmp_path):
    file = planes_file(store, tmp_path / "cache")
    with FileLock(file.with_suffix(".lock")):
        assert planes_file(store, tmp_path / "cache") == file


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(GradshardError, match=r"cannot be written \(Permission denied\): name another folder by cache="):
        locked(tmp_path / "cache/x.lock").__enter__()


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, PGD])
def test_a_label_that_is_no_class_of_the_model_names_its_row_before_any_gradient(model, rows, options):
    images, labels = rows
    with pytest.raises(GradshardError, match=r"row \d+ of the dataset has the label 1\d, but the model has 10 logits"):
        compute_signs(model, (images, labels + 5), "L.zarr", label="true", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mean": 0.5, "std": 0.5}, "mean=0.5 and std=0.5 are no normalisation of 1 channel"),
        ({**PGD, "copies": 2, "seed": 1 << 63}, "seed should be less than 9223372036854775808"),
    ],
)
def test_odd_numbers_are_told(model, rows, options, told):
    with pytest.raises(GradshardError, match=told):
        compute_signs(model, rows, "N.zarr", **options)


def test_whole_numbers_of_numpy_count(model, rows):
    first = tuple(part[:20] for part in rows)
    plain = compute_signs(model, first, "1.zarr", attack="pgd", epsilon=0.3, steps=2, copies=2, seed=3)
    odd = compute_signs(
        model, first, "2.zarr", attack="pgd", epsilon=0.3, steps=np.int64(2), copies=np.int32(2), seed=np.uint8(3)
    )
    assert odd.manifest.content == plain.manifest.content


def test_a_url_is_no_folder_for_a_store(model, rows):
    with pytest.raises(GradshardError, match=r"s3://bucket/x\.zarr is a URL: name a folder of this machine"):
        compute_signs(model, rows, "s3://bucket/x.zarr")
