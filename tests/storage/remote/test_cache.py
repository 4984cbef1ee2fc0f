"""Reading a store where it lies, from real servers, with a bounded folder on this machine."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.store_paths import labels_file, signs_file
from gradshard.storage.remote.cache import open_remote
from gradshard.storage.remote.transfer import push
from gradshard.storage.streaming.reader import WindowedReader, open_reader, plan_reading
from gradshard.storage.streaming.windows import Request
from tests.helpers.places import serve
from tests.helpers.projects import ROOT
from tests.helpers.transfers import contents

UNBOUNDED = 1 << 40


@pytest.fixture(params=["nginx", "plain_http", "s3", "gs", "az", "hf"])
def url(request, source):
    """The address of the small store at a server with ranges, at one without, and at those of clouds and the hub."""
    server = request.getfixturevalue(request.param)
    if request.param in ("nginx", "plain_http"):
        return serve(source, server)
    url = "hf://datasets/someone/M.zarr" if request.param == "hf" else f"{server.url}/M.zarr"
    push(source, url, advance=lambda count: None)
    return url


@pytest.fixture
def served(nginx, source):
    """The address of the small store at a server that tells what it was asked for."""
    shutil.copytree(source, nginx.folder / "M.zarr")
    return f"{nginx.url}/M.zarr"


def kept_bytes(cache):
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def largest(store, kind="signs/c/"):
    return max(record.size for name, record in store.manifest.files.items() if name.startswith(kind))


def test_a_remote_store_reads_as_the_local_one(url, small_store, tmp_path):
    remote = open_remote(url, tmp_path / "cache", limit=UNBOUNDED)
    assert (remote.manifest, len(remote), remote.where) == (small_store.manifest, 700, url)
    for start, stop in ((0, 1), (31, 33), (100, 400), (699, 700)):
        assert np.array_equal(remote.read(start, stop), small_store.read(start, stop))
    assert np.array_equal(remote.load(), small_store.load())
    assert np.array_equal(remote.load_labels(), small_store.load_labels())


def test_a_file_is_fetched_when_it_is_first_needed_and_then_kept(nginx, served, tmp_path):
    store = open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    before = set(nginx.fetched("/M.zarr"))
    assert not any("/c/" in name for name in before)
    for _ in range(2):
        store.read(0, store.layout.shard + 1)
    again = open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    again.read(0, 2 * store.layout.shard)
    assert Counter(name for name in nginx.fetched("/M.zarr") if "/c/" in name) == {signs_file(0): 1, signs_file(1): 1}


@pytest.mark.parametrize("shards", [1, 3])
def test_the_folder_holds_no_more_than_its_limit(served, small_store, tmp_path, shards):
    limit = shards * largest(small_store)
    store = open_remote(served, tmp_path / "cache", limit=limit)
    shard, most = store.layout.shard, 0
    for start in range(0, len(store), shard):
        stop = min(start + shard, len(store))
        assert np.array_equal(store.read(start, stop), small_store.read(start, stop))
        assert kept_bytes(tmp_path / "cache") <= limit
        most = max(most, len([name for name in contents(tmp_path / "cache") if "signs/c/" in name]))
    assert most == shards


def test_a_file_larger_than_the_limit_is_held_alone(served, small_store, tmp_path):
    store = open_remote(served, tmp_path / "cache", limit=1)
    assert np.array_equal(store.load(), small_store.load())
    assert list(contents(tmp_path / "cache" / store.manifest.digest[:16])) == [signs_file(store.layout.shards - 1)]


def test_what_was_not_read_for_longest_makes_room_and_is_fetched_again(nginx, served, small_store, tmp_path):
    store = open_remote(served, tmp_path / "cache", limit=2 * largest(small_store))
    for shard in (0, 1, 0, 2, 0, 1):
        time.sleep(0.02)  # a file system tells times in steps of some milliseconds
        store.read(shard * store.layout.shard, shard * store.layout.shard + 1)
    fetched = Counter(name for name in nginx.fetched("/M.zarr") if name.startswith("signs/c/"))
    assert fetched == {signs_file(0): 1, signs_file(1): 2, signs_file(2): 1}


def test_the_folder_may_be_deleted_at_any_time(served, small_store, tmp_path):
    store = open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    store.load()
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(store.load(), small_store.load())


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_kept_file_gives_no_wrong_signs(served, small_store, tmp_path, damage):
    store = open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    store.load()
    kept = tmp_path / "cache" / store.manifest.digest[:16] / signs_file(3)
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1, *content[1:]]))
    if damage == "cut":
        assert np.array_equal(store.load(), small_store.load())
        return
    with pytest.raises(GradshardError, match=f"{signs_file(3)} is damaged"):
        store.load()


def test_a_kept_file_that_was_damaged_since_is_fetched_again(served, small_store, tmp_path):
    cache = tmp_path / "cache"
    open_remote(served, cache, limit=UNBOUNDED).load()
    path = next(cache.rglob(signs_file(3)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert np.array_equal(open_remote(served, cache, limit=UNBOUNDED).load(), small_store.load())


READ_AT_RANDOM = """
import sys
from pathlib import Path
import numpy as np
from gradshard.storage.remote.cache import open_remote
from gradshard.storage.formats.sign_reader import open_store

url, local, cache, limit, seed = sys.argv[1:]
remote, local = open_remote(url, Path(cache), limit=int(limit)), open_store(Path(local))
for shard in np.random.default_rng(int(seed)).integers(0, remote.layout.shards, 150).tolist():
    rows = remote.layout.shard_rows(shard)
    assert np.array_equal(remote.read(rows.start, rows.stop), local.read(rows.start, rows.stop))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_processes_share_one_folder(served, source, small_store, tmp_path, shards):
    """They make room for their own files while the others read theirs."""
    limit = shards * largest(small_store)
    arguments = [served, str(source), str(tmp_path / "cache"), str(limit)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READ_AT_RANDOM, *arguments, str(seed)], stderr=subprocess.PIPE, cwd=ROOT
        )
        for seed in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err.decode()
    assert kept_bytes(tmp_path / "cache") <= limit


def test_a_remote_store_is_planned_in_whole_shards(served, small_store, small_dataset, tmp_path):
    split, remote = small_dataset.train, open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    assert small_store.layout.shard > small_store.layout.chunk
    assert plan_reading(split, {"M": small_store}, memory=1).chunk < small_store.layout.shard
    assert plan_reading(split, {"M": remote}, memory=1).chunk == remote.layout.shard
    assert plan_reading(split, {"L": small_store, "M": remote}, memory=1).chunk == remote.layout.shard
    assert plan_reading(split, {"M": remote}, memory=UNBOUNDED).resident


@pytest.mark.parametrize("memory", [1, 200_000], ids=["windows of one chunk", "larger windows"])
def test_windows_fetch_each_shard_once_an_epoch(nginx, served, small_store, small_dataset, tmp_path, memory):
    """Even where the folder holds no more than one shard."""
    split, remote = small_dataset.train, open_remote(served, tmp_path / "cache", limit=1)
    plan = plan_reading(split, {"M": remote}, memory=memory)
    assert not plan.resident
    assert (plan.window > 1) == (memory > 1)
    reader = open_reader(split, {"M": remote}, plan)
    assert isinstance(reader, WindowedReader)
    signs = small_store.load()
    for epoch in range(2):
        order = plan.order(len(split), seed=0, epoch=epoch)
        batches = [order.take(start, min(start + 16, len(split))) for start in range(0, len(split), 16)]
        got = list(reader.read(Request(rows, "M") for rows in batches))
        assert all(np.array_equal(batch.planes, signs[rows]) for batch, rows in zip(got, batches, strict=True))
        if epoch == 0:
            first = Counter(name for name in nginx.fetched("/M.zarr") if name.startswith("signs/c/"))
            assert first == dict.fromkeys(map(signs_file, range(remote.layout.shards)), 1)
    both = Counter(name for name in nginx.fetched("/M.zarr") if name.startswith("signs/c/"))
    # A second epoch may find the chunks that the first one ended with still in memory.
    assert set(both.values()) <= {1, 2}
    assert sum(both.values()) > 1.5 * remote.layout.shards


def test_labels_of_a_remote_store_are_not_fetched_to_read_signs(nginx, served, tmp_path):
    store = open_remote(served, tmp_path / "cache", limit=UNBOUNDED)
    store.load()
    assert labels_file(0) not in nginx.fetched("/M.zarr")


def streamed(project, server, names=("A", "C", "D")):
    """Move a project's stores to a web server; gives the options that name them there."""
    options = []
    for name in names:
        shutil.move(project.path / "signs" / f"{name}.zarr", server.folder / f"{name}.zarr")
        options += ["--store", f"{name}={server.url}/{name}.zarr"]
    return options


def trained(project):
    return {
        name: content
        for folder in ("models/robust", "models/snapshots", "training")
        for name, content in contents(project.path / folder).items()
        if "A_adv-ens" in name
    }


@pytest.mark.slow
def test_a_model_trained_on_streamed_stores_is_the_model_trained_on_local_ones(plain_http, copied_project, gradshard):
    expected = trained(copied_project)
    assert len(expected) >= 3
    for path in (copied_project.path / "models/robust").glob("A_adv-ens*"):
        path.unlink()
    shutil.rmtree(copied_project.path / "models/snapshots/A_adv-ens-10")
    options = streamed(copied_project, plain_http)
    code, err = gradshard(copied_project, "train-robust", "A_adv-ens", *options)
    assert code == 0, err
    assert trained(copied_project) == expected
    assert {name for name in plain_http.fetched() if name.endswith("manifest.json")} == {
        f"{name}.zarr/manifest.json" for name in "ACD"
    }


@pytest.mark.slow
def test_streamed_windows_train_the_same_model_from_any_server_and_any_cache(
    nginx, finished_project, tmp_path, gradshard
):
    """Too large for memory, a remote store is read by windows of whole shards, wherever it is."""
    models = []
    for number, cache_size in enumerate(("1 GiB", "1 kB")):
        project = finished_project.copy_to(tmp_path / f"project-{number}")
        project.edit(lambda params: params["streaming"].update(memory="200 kB"))
        stores = [Path(project.path / "signs" / f"{name}.zarr") for name in "ACD"]
        if number == 0:
            options = [part for path in stores for part in ("--store", f"{path.stem}=file://{path}")]
        else:
            options = streamed(project, nginx)
        code, err = gradshard(project, "train-robust", "A_adv-ens", *options, "--cache-size", cache_size)
        assert code == 0, err
        models.append(trained(project))
    assert models[0] == models[1]
    assert models[0] != trained(finished_project)


def test_a_source_that_the_model_does_not_have_is_refused(copied_project, gradshard):
    for option in ("B=http://127.0.0.1:9/B.zarr", "http://127.0.0.1:9/A.zarr", "A="):
        code, err = gradshard(copied_project, "train-robust", "A_adv-ens", "--store", option)
        assert code == 2
        assert err.startswith("gradshard: ")
        assert err.count("\n") == 1
