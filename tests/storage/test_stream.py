"""Both readers give the same batch for the same request, and hold no more than they may."""

import threading
from pathlib import Path

import numpy as np
import pytest

from storage.errors import GradshardError
from storage.stream import Request, Resident, Windowed, open_reader, plan_reading
from tests.conftest import build_store


@pytest.fixture
def stores(tmp_path, small_dataset):
    return {
        name: build_store(tmp_path / f"b{name}", small_dataset, tmp_path / f"{name}.zarr", seed=seed, model=name)
        for seed, name in enumerate(("A", "C"))
    }


def requests(plan, *, batch=37, epochs=2):
    sources = [None, "A", "C"]
    for epoch in range(epochs):
        order = plan.order(700, seed=5, epoch=epoch)
        for number, start in enumerate(range(0, 700, batch)):
            yield Request(order.take(start, min(start + batch, 700)), sources[(epoch + number) % 3])


def test_the_plan_is_resident_within_the_budget_and_windowed_beyond(small_dataset, stores):
    row = 784 + 2 * 2 * 98
    assert plan_reading(small_dataset.train, stores, memory=700 * row).resident
    plan = plan_reading(small_dataset.train, stores, memory=700 * row - 1)
    assert not plan.resident
    assert 2 * plan.window * plan.chunk * row <= 700 * row


@pytest.mark.parametrize("memory", [1, 100_000, 300_000])
def test_a_windowed_reader_gives_what_the_resident_one_gives(small_dataset, stores, memory):
    plan = plan_reading(small_dataset.train, stores, memory=memory)
    assert not plan.resident
    resident, windowed = Resident(small_dataset.train, stores), Windowed(small_dataset.train, stores, plan, batch=37)
    for one, other in zip(resident.read(requests(plan)), windowed.read(requests(plan)), strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        assert (one.planes is None and other.planes is None) or np.array_equal(one.planes, other.planes)


def test_every_row_carries_its_own_image_label_and_signs(small_dataset, stores):
    images, labels = small_dataset.train.load()
    planes = stores["C"].load()
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    reader = open_reader(small_dataset.train, stores, plan, batch=37)
    for request, batch in zip(requests(plan, epochs=1), reader.read(requests(plan, epochs=1)), strict=True):
        assert np.array_equal(batch.images, images[request.rows])
        assert np.array_equal(batch.labels, labels[request.rows])
        if request.store == "C":
            assert np.array_equal(batch.planes, planes[request.rows])


def test_the_windowed_reader_reads_each_chunk_once_an_epoch(small_dataset, stores, monkeypatch):
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    reads = []
    original = type(small_dataset.train).read_images
    monkeypatch.setattr(
        type(small_dataset.train),
        "read_images",
        lambda split, start, stop: reads.append(start) or original(split, start, stop),
    )
    reader = Windowed(small_dataset.train, stores, plan, batch=37)
    for _ in reader.read(requests(plan, epochs=1)):
        pass
    assert sorted(reads) == list(range(0, 700, plan.chunk))


def test_damage_met_by_the_reading_thread_reaches_the_caller(small_dataset, stores):
    (Path(stores["A"].where) / "signs/c/2/0/0").unlink()
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    reader = open_reader(small_dataset.train, stores, plan, batch=37)
    with pytest.raises(GradshardError, match=r"signs/c/2/0/0 is missing"):
        list(reader.read(requests(plan)))


def test_a_caller_that_stops_early_leaves_no_thread(small_dataset, stores):
    plan = plan_reading(small_dataset.train, stores, memory=100_000)
    batches = open_reader(small_dataset.train, stores, plan, batch=37).read(requests(plan))
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "gradshard-read-ahead"]
