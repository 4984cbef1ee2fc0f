"""One published store, four readers: ours, zarr-python, TensorStore and zarrs give the same signs and labels."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.sign_reader import open_store
from tests.helpers.known_stores import KnownStore, publish, spec_of

SPECS = {
    "one shard": spec_of(64, chunk=8, shard=64),
    "many shards": spec_of(512, chunk=4, shard=16, shape=(3, 8, 8)),
    "a last shard partly filled": spec_of(333, chunk=8, shard=64, shape=(1, 5, 5)),
    "fewer rows than a chunk": spec_of(5, chunk=8, shard=32, shape=(1, 3, 3)),
    "more than 255 classes": spec_of(300, chunk=8, shard=64, shape=(1, 7, 7), classes=1000),
}

# A process of its own for each library: TensorStore aborts when a process forks, zarrs hangs.
ZARRS = """
import sys, numpy, zarr
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
for store, target in zip(sys.argv[1::2], sys.argv[2::2]):
    group = zarr.open_group(store, mode="r")
    assert type(group["signs"]._async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
    numpy.savez(target, signs=group["signs"][:], labels=group["labels"][:])
"""
TENSORSTORE = """
import sys, numpy, tensorstore
for store, target in zip(sys.argv[1::2], sys.argv[2::2]):
    read = {}
    for name in ("signs", "labels"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{name}/"}}
        read[name] = tensorstore.open(spec, read=True, open=True).result().read().result()
    numpy.savez(target, **read)
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, KnownStore]:
    folder = tmp_path_factory.mktemp("readers")
    return {kind: publish(folder / f"{number}.zarr", spec) for number, (kind, spec) in enumerate(SPECS.items())}


def read_elsewhere(script: str, stores: dict[str, KnownStore], folder: Path) -> dict[str, dict[str, np.ndarray]]:
    targets = {kind: folder / f"{number}.npz" for number, kind in enumerate(stores)}
    arguments = [str(part) for kind, store in stores.items() for part in (store.path, targets[kind])]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {kind: dict(np.load(target)) for kind, target in targets.items()}


@pytest.fixture(scope="module")
def by_zarrs(stores, tmp_path_factory):
    pytest.importorskip("zarrs")
    return read_elsewhere(ZARRS, stores, tmp_path_factory.mktemp("zarrs"))


@pytest.fixture(scope="module")
def by_tensorstore(stores, tmp_path_factory):
    # Not imported here: this process forks.
    return read_elsewhere(TENSORSTORE, stores, tmp_path_factory.mktemp("tensorstore"))


def check(store: KnownStore, planes: np.ndarray, labels: np.ndarray) -> None:
    assert planes.dtype == np.uint8
    assert np.array_equal(planes, bitplanes.pack(store.signs))
    assert np.array_equal(labels, store.labels)


@pytest.mark.parametrize("kind", SPECS)
def test_our_reader_gives_the_signs_and_labels_that_were_written(stores, kind):
    opened = open_store(stores[kind].path)
    check(stores[kind], opened.load(), opened.load_labels())
    check(stores[kind], opened.read(0, len(opened)), opened.load_labels())


@pytest.mark.parametrize("kind", SPECS)
def test_zarr_python_gives_the_same(stores, kind):
    group = zarr.open_group(stores[kind].path, mode="r")
    check(stores[kind], group["signs"][:], group["labels"][:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_tensorstore_gives_the_same(stores, by_tensorstore, kind):
    check(stores[kind], by_tensorstore[kind]["signs"], by_tensorstore[kind]["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_zarrs_gives_the_same(stores, by_zarrs, kind):
    check(stores[kind], by_zarrs[kind]["signs"], by_zarrs[kind]["labels"])


def test_labels_of_more_than_255_classes_take_two_bytes(stores):
    group = zarr.open_group(stores["more than 255 classes"].path, mode="r")
    assert group["labels"].dtype == np.uint16
    assert stores["more than 255 classes"].labels.max() > 255


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_any_rows_are_read_as_they_stand_in_the_whole(stores, kind, seed):
    opened, rng = open_store(stores[kind].path), np.random.default_rng(seed)
    whole = bitplanes.pack(stores[kind].signs)
    for _ in range(60):
        start, stop = sorted(rng.integers(0, len(opened) + 1, size=2).tolist())
        assert np.array_equal(opened.read(start, stop), whole[start:stop])
    for start in (0, len(opened) - 1):
        assert np.array_equal(opened.read(start, start + 1), whole[start : start + 1])


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_any_size_make_the_whole(stores, kind, seed):
    opened, rng = open_store(stores[kind].path), np.random.default_rng(seed)
    cuts = sorted({0, len(opened), *rng.integers(0, len(opened), size=20).tolist()})
    pieces = [opened.read(start, stop) for start, stop in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), opened.load())
