"""Reading a dataset where it lies, from real servers, with a bounded folder on this machine."""

import shutil
from collections import Counter

import numpy as np
import pytest

import gradshard as gs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset import METADATA, images_file, labels_file
from gradshard.storage.remote.dataset_cache import open_dataset
from gradshard.storage.remote.location import open_location
from gradshard.storage.streaming.reader import WindowedReader, open_reader, plan_reading
from gradshard.storage.streaming.windows import Request
from tests.helpers.broken_servers import broken_http

UNBOUNDED = 1 << 40


@pytest.fixture(params=["nginx", "plain_http", "s3"])
def url(request, small_dataset_path):
    """The address of the small dataset at a server with ranges, at one without, and at an S3 server."""
    server = request.getfixturevalue(request.param)
    if request.param == "s3":
        for file in small_dataset_path.rglob("*"):
            if file.is_file():
                server.put(f"{server.url}/d.zarr/{file.relative_to(small_dataset_path)}", file.read_bytes())
    else:
        shutil.copytree(small_dataset_path, server.folder / "d.zarr")
    return f"{server.url}/d.zarr"


@pytest.fixture
def served(nginx, small_dataset_path):
    """The address of the small dataset at a server that tells what it was asked for."""
    shutil.copytree(small_dataset_path, nginx.folder / "d.zarr")
    return f"{nginx.url}/d.zarr"


def test_a_remote_dataset_reads_as_the_local_one(url, small_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remote = gs.open_dataset(url)
    assert (remote.name, remote.classes, remote.class_names) == ("digits", 10, small_dataset.class_names)
    for ours, theirs in ((remote.train, small_dataset.train), (remote.test, small_dataset.test)):
        assert (len(ours), ours.digest, ours.sample_shape) == (len(theirs), theirs.digest, theirs.sample_shape)
        rows = np.random.default_rng(0).permutation(len(ours))[:30]
        assert np.array_equal(ours.take_images(rows), theirs.take_images(rows))
        assert all(np.array_equal(one, other) for one, other in zip(ours.load(), theirs.load(), strict=True))
    assert np.array_equal(remote.train.read_labels(33, 300), small_dataset.train.read_labels()[33:300])
    assert (tmp_path / ".partial/stores").is_dir()


def test_what_is_read_is_fetched_once_and_nothing_else(nginx, served, tmp_path):
    remote = open_dataset(served, tmp_path / "cache", UNBOUNDED)
    assert sorted(nginx.fetched("/d.zarr")) == sorted(METADATA)
    for _ in range(2):
        remote.train.read_images(0, remote.train.layout.shard + 1)
        remote.test.read_labels(2, 3)
    more = Counter(nginx.fetched("/d.zarr")) - Counter(METADATA)
    assert more == {f"train/{images_file(0)}": 1, f"train/{images_file(1)}": 1, f"test/{labels_file(0)}": 1}
    open_dataset(served, tmp_path / "cache", UNBOUNDED).train.read_images(0, 5)
    assert Counter(nginx.fetched("/d.zarr")) == more + Counter(METADATA) + Counter(METADATA)


def test_the_folder_holds_no_more_than_it_may(served, small_dataset, tmp_path):
    largest = 1 << 18
    remote = open_dataset(served, tmp_path / "cache", largest)
    assert np.array_equal(remote.train.load()[0], small_dataset.train.load()[0])
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert 0 < kept <= largest < small_dataset.train.load()[0].nbytes
    with pytest.raises(GradshardError, match="but the cache may have 1000: allow more"):
        open_dataset(served, tmp_path / "small", 1000).train.load()


def test_files_whose_size_the_server_does_not_tell_are_fetched_as_far_as_the_folder_allows(
    small_dataset_path, small_dataset, tmp_path
):
    images, labels = small_dataset.train.load()
    with broken_http(small_dataset_path) as server:
        server.sizes = False
        for limit in (UNBOUNDED, 1 << 18):
            cache = tmp_path / f"cache-{limit}"
            loaded = open_dataset(server.url, cache, limit).train.load()
            assert np.array_equal(loaded[0], images)
            assert np.array_equal(loaded[1], labels)
            kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
            assert 0 < kept <= limit
        before = len(server.fetched())
        again = open_dataset(server.url, tmp_path / f"cache-{UNBOUNDED}", UNBOUNDED).train
        assert np.array_equal(again.load()[0], images)
        # The first part of each answer, in which a size might have been.
        assert set(Counter(name for name in server.fetched()[before:] if "/c/" in name).values()) == {1}
        with pytest.raises(GradshardError, match="has more than 1000 bytes, but the cache may have 1000: allow more"):
            open_dataset(server.url, tmp_path / "small", 1000).train.load()
        server.refusal, server.refusals = 404, 2
        with pytest.raises(FileNotFoundError):
            open_location(server.url).told_size("zarr.json")


def test_windows_of_a_remote_split_fetch_each_shard_once(nginx, served, small_store, small_dataset, tmp_path):
    remote = open_dataset(served, tmp_path / "cache", 1 << 18).train
    plan = plan_reading(remote, {"M": small_store}, memory=1)
    assert plan.chunk == remote.layout.shard > small_dataset.train.layout.chunk
    small_store.check_made_for(remote)
    reader = open_reader(remote, {"M": small_store}, plan)
    assert isinstance(reader, WindowedReader)
    order = plan.order(700, seed=0, epoch=0)
    batches = [order.take(start, min(start + 64, 700)) for start in range(0, 700, 64)]
    images = small_dataset.train.load()[0]
    for batch, rows in zip(reader.read(Request(rows, "M") for rows in batches), batches, strict=True):
        assert np.array_equal(batch.images, images[rows])
    fetched = Counter(name for name in nginx.fetched("/d.zarr") if name.startswith("train/images/c/"))
    assert fetched == {f"train/{images_file(shard)}": 1 for shard in range(remote.layout.shards)}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder), r"no dataset at .*/d\.zarr \(it has no zarr\.json\): check the address"),
        (lambda folder: (folder / "train/images/zarr.json").unlink(), "is not a whole dataset .*: tell its owner"),
        (lambda folder: (folder / "zarr.json").write_text("[" * 10**5), "is not a whole dataset .*: tell its owner"),
        (lambda folder: (folder / "zarr.json").write_text("{}"), "is not a gradshard dataset of version 1: tell its"),
    ],
)
def test_what_is_no_dataset_is_refused(nginx, served, tmp_path, damage, sentence):
    damage(nginx.folder / "d.zarr")
    with pytest.raises(GradshardError, match=sentence):
        open_dataset(served, tmp_path / "cache", UNBOUNDED)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        (images_file(1), None, r"http://.*/d\.zarr/train/images/c/1/0/0/0 is missing: delete what the cache keeps"),
        (images_file(1), 100, "train images of dataset digits, shard 1, .* tell its owner if that does not help"),
        (labels_file(1), None, r"train/labels/c/1 is missing: delete what the cache keeps"),
        (labels_file(1), 5, "train labels of dataset digits, shard 1, its checksum is wrong: delete what"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(nginx, served, tmp_path, file, damage, sentence):
    path = nginx.folder / "d.zarr/train" / file
    content = bytearray(path.read_bytes())
    if damage is None:
        path.unlink()
    else:
        content[damage] ^= 1
        path.write_bytes(content)
    remote = open_dataset(served, tmp_path / "cache", UNBOUNDED)
    with pytest.raises(GradshardError, match=sentence):
        remote.train.load()


def test_rows_that_are_not_those_of_the_digest_are_refused(nginx, served, small_dataset_path, tmp_path):
    """As a server may give them, with checksums that are right."""
    for number, other in ((0, 1), (1, 0)):
        shutil.copy(
            small_dataset_path / "train" / images_file(number), nginx.folder / "d.zarr/train" / images_file(other)
        )
    with pytest.raises(GradshardError, match="were changed or reordered after preparation"):
        open_dataset(served, tmp_path / "cache", UNBOUNDED).train.load()
