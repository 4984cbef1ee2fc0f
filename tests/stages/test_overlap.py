"""Writing a shard is hidden behind computing the next: it is not a shard's turn to compute that keeps it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs import sign_stores
from gradshard.stages.jobs.models import load_model
from gradshard.stages.jobs.sign_stores import ShardTask, compute_shard
from gradshard.stages.machines.dask_cluster import dask_client, threads
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.sign_writer import StoreBuilder

DIRECTION = GradientSpec("exact", "predicted")


@pytest.fixture
def task(tmp_path, small_dataset_path, small_dataset):
    model = models.create_model("D", small_dataset.sample_shape, small_dataset.classes, seed=1)
    file = tmp_path / "D.safetensors"
    checkpoints.save(file, model.state_dict(), {"architecture": "D"})
    loaded = load_model(file, "D", small_dataset, torch.device("cpu"))
    wanted = SignsParams(model="D", gradient="exact", label="predicted")
    spec = sign_stores.store_spec(wanted, loaded, small_dataset.train, DIRECTION, torch.device("cpu"))
    builder = StoreBuilder(tmp_path / "building", spec)
    builder.create()
    return ShardTask(small_dataset_path, file, "cpu", DIRECTION, builder, at_once=1)


def test_a_shard_is_computed_while_another_is_written_and_never_two_at_once(task, monkeypatch):
    compute, write = sign_stores.compute_rows, StoreBuilder.write_shard
    shards = range(min(3, task.builder.layout.shards))
    computing, alone, last = threading.Lock(), [], threading.Event()

    def counted(*arguments):
        alone.append(computing.acquire(blocking=False))
        if len(alone) == len(shards):
            last.set()
        try:
            return compute(*arguments)
        finally:
            if computing.locked():
                computing.release()

    def held_up(self, shard, planes, labels):
        """The first shard's writing ends only once the last shard is being computed."""
        assert shard != 0 or last.wait(60), "no other shard was computed while this one was written"
        return write(self, shard, planes, labels)

    monkeypatch.setattr(sign_stores, "compute_rows", counted)
    monkeypatch.setattr(StoreBuilder, "write_shard", held_up)
    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(lambda shard: compute_shard(task, shard), shards))
    assert len(shards) > 1
    assert [receipt.shard for receipt in receipts] == list(shards)
    assert all(alone), "two shards were computed at once"


@pytest.mark.parametrize(("workers", "device", "at_once"), [(1, "cpu", None), (1, "cuda", 1), (500, "cpu", 1)])
def test_a_process_has_a_thread_for_each_shard_at_once_and_the_spare_ones(workers, device, at_once, monkeypatch):
    monkeypatch.setattr("gradshard.stages.machines.dask_cluster._cores", lambda: 3)
    place = ClusterConfig(workers=workers)
    assert threads(place, device) == (at_once or 3)
    if workers == 1 and device == "cpu":
        with dask_client(place, device, spare=1) as client:
            assert list(client.nthreads().values()) == [4]


def test_a_running_cluster_decides_itself_how_much_it_computes_at_once():
    assert threads(ClusterConfig(scheduler="tcp://127.0.0.1:1"), "cpu") is None
