import pytest
import torch

from gradshard.pipeline.gradients.microbatches import batch_rows, microbatches


@pytest.mark.parametrize(
    ("shape", "slices"),
    [
        ((300, 1, 28, 28), [slice(0, 128), slice(128, 256), slice(256, 300)]),
        ((128, 1, 28, 28), [slice(0, 128)]),
        ((3, 3, 299, 299), [slice(0, 1), slice(1, 2), slice(2, 3)]),
        ((0, 1, 28, 28), []),
    ],
)
def test_rows_are_cut_into_batches_of_about_as_many_pixels(shape, slices):
    assert list(microbatches(torch.empty(shape))) == slices


def test_an_image_larger_than_a_batch_is_one_by_itself():
    assert (batch_rows(28 * 28), batch_rows(3 * 299 * 299)) == (128, 1)
