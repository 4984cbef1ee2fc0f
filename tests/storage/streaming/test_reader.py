"""Both readers give the same batch for the same request, and hold no more than they may."""

import math
import queue
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import shard_reader
from gradshard.storage.formats.chunking import CHUNK_BYTES
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.gather import THREADS
from gradshard.storage.streaming.reader import InMemoryReader, WindowedReader, _ahead, open_reader, plan_reading
from gradshard.storage.streaming.windows import Request, names_of
from tests.helpers.stores import build_store, rand_fgsm_record


@pytest.fixture
def stores(tmp_path, small_dataset):
    return {
        name: build_store(tmp_path / f"b{name}", small_dataset, tmp_path / f"{name}.zarr", seed=seed, model=name)
        for seed, name in enumerate(("A", "C"))
    }


def requests(plan, *, batch=37, epochs=2):
    sources = [None, "A", ("C", "A"), "C"]
    for epoch in range(epochs):
        order = plan.order(700, seed=5, epoch=epoch)
        for number, start in enumerate(range(0, 700, batch)):
            yield Request(order.take(start, min(start + batch, 700)), sources[(epoch + number) % 4], epoch)


def test_the_plan_is_resident_within_the_budget_and_windowed_beyond(small_dataset, stores):
    row = 784 + 2 * 2 * 98
    assert plan_reading(small_dataset.train, stores, memory=700 * row).resident
    plan = plan_reading(small_dataset.train, stores, memory=700 * row - 1)
    assert not plan.resident
    assert 2 * plan.window * plan.chunk * row <= 700 * row


def test_ranks_share_windows_that_one_process_could_not_hold(small_dataset):
    plan = plan_reading(small_dataset.train, {}, memory=100_000, window=256)
    assert plan.window * plan.chunk == 256
    assert plan.held == 100_000 // (2 * plan.chunk * 784) < plan.window
    assert plan_reading(small_dataset.train, {}, memory=700 * 784, window=256).resident


@pytest.mark.parametrize("memory", [1, 100_000, 300_000])
def test_a_windowed_reader_gives_what_the_resident_one_gives(small_dataset, stores, memory):
    plan = plan_reading(small_dataset.train, stores, memory=memory)
    assert not plan.resident
    resident, windowed = InMemoryReader(small_dataset.train, stores), WindowedReader(small_dataset.train, stores, plan)
    for one, other in zip(resident.read(requests(plan)), windowed.read(requests(plan)), strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        assert (one.planes is None and other.planes is None) or np.array_equal(one.planes, other.planes)


def test_copies_are_read_in_turn_whatever_the_windows(tmp_path, small_dataset):
    one, three = (
        build_store(tmp_path / name, small_dataset, tmp_path / f"{name}.zarr", attack=rand_fgsm_record(copies=copies))
        for name, copies in (("one", 1), ("three", 3))
    )
    split, stores = small_dataset.train, {"A": three, "C": one, "D": three.of_copy(2)}
    plan = plan_reading(split, stores, memory=100_000)
    # The turn may change in the middle of an epoch, and so of a window.
    asked = [r._replace(store=tuple(stores), turn=number // 7) for number, r in enumerate(requests(plan, epochs=3))]
    planes, alone = [store.load() for store in three.in_turn], one.load()
    for reader in (InMemoryReader(split, stores), WindowedReader(split, stores, plan)):
        for request, batch in zip(asked, reader.read(asked), strict=True):
            assert np.array_equal(batch.rows, request.rows)
            expected = planes[request.turn % 3], alone, planes[2]
            assert np.array_equal(batch.planes, [copy[request.rows] for copy in expected])


def test_all_copies_are_resident_or_windows_of_one_copy_are_read(tmp_path, small_dataset):
    record = rand_fgsm_record(copies=3)
    stores = {"A": build_store(tmp_path / "b", small_dataset, tmp_path / "A.zarr", attack=record)}
    row, copy = 784, 2 * 98
    assert plan_reading(small_dataset.train, stores, memory=700 * (row + 3 * copy)).resident
    memory = 700 * (row + 3 * copy) - 1
    plan = plan_reading(small_dataset.train, stores, memory=memory)
    assert not plan.resident
    assert plan.window == memory // (2 * plan.chunk * (row + copy))


def test_every_row_carries_its_own_image_label_and_signs(small_dataset, stores):
    images, labels = small_dataset.train.load()
    planes, others = (stores[name].load() for name in "CA")
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    reader = open_reader(small_dataset.train, stores, plan)
    for request, batch in zip(requests(plan, epochs=1), reader.read(requests(plan, epochs=1)), strict=True):
        assert np.array_equal(batch.images, images[request.rows])
        assert np.array_equal(batch.labels, labels[request.rows])
        if request.store == "C":
            assert np.array_equal(batch.planes, planes[request.rows])
        if request.store == ("C", "A"):
            assert np.array_equal(batch.planes, [planes[request.rows], others[request.rows]])


def test_the_windowed_reader_decodes_each_chunk_once_an_epoch(small_dataset, stores, monkeypatch):
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    decoded = []
    original = shard_reader.decode
    monkeypatch.setattr(shard_reader, "decode", lambda content, out: decoded.append(1) or original(content, out))
    orders = [plan.order(700, seed=5, epoch=epoch) for epoch in range(3)]
    batches = WindowedReader(small_dataset.train, stores, plan).read(
        Request(rows, "A", order.epoch) for order in orders for rows in order.batches(37)
    )
    assert sum(len(batch.labels) for batch in batches) == 3 * 700
    assert len(decoded) == 3 * math.ceil(700 / stores["A"].layout.chunk)


def test_the_windowed_reader_holds_two_windows_and_little_else(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2_000, 3, 64, 64), dtype=np.uint8)
    splits = {split: (images, np.zeros(2_000, dtype=np.int64)) for split in ("train", "test")}
    for _ in write_dataset(tmp_path / "d.zarr", name="d", classes=2, splits=splits):
        pass
    split, memory = open_dataset(tmp_path / "d.zarr").train, 6_000_000
    plan = plan_reading(split, {}, memory=memory)
    batches = (
        Request(rows, None, epoch) for epoch in range(3) for rows in plan.order(2_000, seed=0, epoch=epoch).batches(50)
    )
    reader = WindowedReader(split, {}, plan)
    tracemalloc.start()
    try:
        for batch in reader.read(batches):
            assert batch.images.shape == (50, 3, 64, 64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A window may also hold what the one before it had of a batch, and each thread a chunk.
    assert 0.8 * memory < peak < memory + 2 * 50 * images[0].nbytes + THREADS * 2 * CHUNK_BYTES


def test_damage_met_by_the_reading_thread_reaches_the_caller(small_dataset, stores):
    (Path(stores["A"].where) / "signs/c/2/0/0").unlink()
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    reader = open_reader(small_dataset.train, stores, plan)
    with pytest.raises(GradshardError, match=r"signs/c/2/0/0 is missing"):
        list(reader.read(requests(plan)))


def test_a_caller_that_stops_early_leaves_no_thread(small_dataset, stores):
    plan, before = plan_reading(small_dataset.train, stores, memory=100_000), set(threading.enumerate())
    batches = open_reader(small_dataset.train, stores, plan).read(requests(plan))
    next(batches)
    batches.close()
    assert not [new for new in set(threading.enumerate()) - before if new.name.startswith("gradshard")]


def test_a_batch_that_is_kept_stays_as_it_was(small_dataset, stores):
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    asked = list(requests(plan))
    images, planes = small_dataset.train.load()[0], {name: store.load() for name, store in stores.items()}
    kept = list(open_reader(small_dataset.train, stores, plan).read(asked))
    for request, batch in zip(asked, kept, strict=True):
        assert np.array_equal(batch.images, images[request.rows])
        expected = [planes[name][request.rows] for name in names_of(request.store)]
        assert request.store is None or np.array_equal(batch.planes.reshape(len(expected), -1, 2, 98), expected)


def test_batches_larger_than_a_window_are_whole(small_dataset, stores):
    plan = plan_reading(small_dataset.train, stores, memory=1)
    rows = plan.order(700, seed=0, epoch=0).take(0, 700)
    (batch,) = WindowedReader(small_dataset.train, stores, plan).read([Request(rows, "C")])
    assert np.array_equal(batch.images, small_dataset.train.load()[0][rows])
    assert np.array_equal(batch.planes, stores["C"].load()[rows])


def test_an_abandoned_reader_may_be_ended_by_its_own_thread():
    told, abandoned = queue.Queue(), threading.Event()

    def items():
        yield 1
        abandoned.wait(timeout=20)
        try:
            ahead.close()  # as the garbage collector does
        except RuntimeError as error:
            told.put(error)
        told.put(None)

    ahead = _ahead(items())
    assert next(ahead) == 1
    abandoned.set()
    assert told.get(timeout=20) is None
