"""Arrays sorted by class: how they are recognised, and put in order through a file."""

import gzip
import itertools
import resource

import numpy as np
import pytest

from gradshard.storage.ingest import shuffling
from gradshard.storage.ingest.idx import idx_images
from tests.helpers.idx_files import idx_bytes


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 0, 0, 1], [0, 1, 2, 3], [5, 5, 5]])
def test_the_expected_number_of_runs_is_that_of_all_orders(labels):
    runs = [shuffling.label_runs(np.array(order)) for order in itertools.permutations(labels)]
    assert shuffling.expected_runs(np.array(labels)) == pytest.approx((np.mean(runs), np.std(runs)))


def test_real_digits_sorted_by_class_are_recognised_and_in_their_published_order_are_not(digits):
    for labels in (digits["train"][1], digits["test"][1]):
        assert not shuffling.is_sorted(labels)
        assert shuffling.is_sorted(np.sort(labels))
        assert shuffling.is_sorted(np.sort(labels)[::-1])


def test_batches_that_are_each_sorted_are_recognised(digits):
    labels = digits["train"][1].reshape(40, 100)
    assert shuffling.is_sorted(np.sort(labels, axis=1).ravel())


def test_rows_of_every_class_in_turn_and_rows_too_few_to_tell_are_not_sorted():
    assert not shuffling.is_sorted(np.arange(1000) % 10)
    assert not shuffling.is_sorted(np.array([0, 0, 1, 1]))
    assert not shuffling.is_sorted(np.array([], dtype=np.uint8))


@pytest.mark.parametrize("seed", range(20))
def test_random_orders_are_not_sorted(seed):
    generator = np.random.default_rng(seed)
    assert not shuffling.is_sorted(generator.permutation(np.repeat([0, 1], [900, 100])))


def test_images_of_a_compressed_file_come_in_the_new_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5_000, 12, 40), dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
    raw, order = idx_images(tmp_path / "images.gz"), shuffling.shuffled_order(5_000, seed=3, split=0)
    counts = list(shuffling.scatter(raw, order, tmp_path / "scratch"))
    assert sum(counts) == 5_000
    assert len(counts) > 1
    assert np.array_equal(shuffling.scattered(raw, tmp_path / "scratch")[:][:, 0], images[order])


def test_an_image_that_is_written_in_part_is_an_error_and_never_other_pixels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 100, 100), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (images.nbytes - 10, hard))  # room for a part of the last image
    try:
        with pytest.raises(OSError, match="File too large"):
            list(shuffling.scatter(images, shuffling.shuffled_order(300, seed=0, split=0), tmp_path / "scratch"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_orders_of_other_seeds_and_splits_differ():
    orders = {tuple(shuffling.shuffled_order(100, seed=s, split=k).tolist()) for s in (0, 1) for k in (0, 1)}
    assert len(orders) == 4
