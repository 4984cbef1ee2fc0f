"""Images of an examination, from an archive."""

import numpy as np
import pytest

from gradshard.stages.jobs.examined import _archived


@pytest.mark.parametrize(("told", "classes"), [(None, 9), (10, 10), (3, 9)])
def test_classes_without_images_are_counted_if_the_archive_tells_their_number(tmp_path, told, classes):
    more = {} if told is None else {"classes": told}
    images = np.zeros((9, 1, 4, 4), np.uint8)
    np.savez(tmp_path / "some.npz", x_test=images, y_test=np.arange(9), **more)
    assert _archived(tmp_path / "some.npz").classes == classes
