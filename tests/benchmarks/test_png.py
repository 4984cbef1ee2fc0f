"""PNG files compared with stores: both give the trainer the same adversarial images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.png import PngImages, _eight_bits, _perturbed, adversarial, write_pngs
from benchmarks.rows import SIGNS, cifar10_rows, opened, stored
from gradshard.storage.streaming.reader import InMemoryReader
from gradshard.storage.streaming.windows import Request


def test_a_png_file_and_a_store_give_the_same_adversarial_image(tmp_path: Path):
    epsilon, rows = 8 / 256, cifar10_rows(16)
    rows = replace(rows, labels=np.arange(16) % 10)
    write_pngs(adversarial(rows, epsilon), tmp_path / "png")
    stored(rows, tmp_path)
    split, store = opened(tmp_path)
    (batch,) = InMemoryReader(split, {SIGNS: store}).read([Request(np.arange(16), SIGNS)])
    ours = _eight_bits(_perturbed(batch.images, batch.planes, epsilon))
    theirs = [PngImages([tmp_path / "png"], rows.labels.tolist())[row] for row in range(16)]
    assert np.array_equal(np.stack([image.numpy() for image, _ in theirs]), ours)
    assert [label for _, label in theirs] == batch.labels.tolist()
    assert not np.array_equal(ours, batch.images)
