"""Batches that are taken from a device's own memory are those that a reader gives."""

import numpy as np
import torch

from gradshard.pipeline.training.data import _taken_there
from gradshard.storage.streaming.reader import InMemoryReader
from gradshard.storage.streaming.windows import Request
from tests.helpers.stores import build_store, rand_fgsm_record


def test_what_a_device_holds_are_all_copies_and_they_are_taken_in_turn(tmp_path, small_dataset, small_store):
    three = build_store(tmp_path / "b", small_dataset, tmp_path / "R.zarr", attack=rand_fgsm_record(copies=3))
    reader = InMemoryReader(small_dataset.train, {"R": three, "M": small_store})
    rows = np.random.default_rng(0).permutation(700)
    asked = [
        Request(rows[40 * number :][:40], store, turn=number)
        for number, store in enumerate(("R", "R", None, "M", "R", ("M", "R")))
    ]
    for raw, there in zip(reader.read(asked), _taken_there(reader, asked, torch.device("cpu")), strict=True):
        assert np.array_equal(raw.rows, there.rows)
        for name in ("images", "labels", "planes"):
            one, other = getattr(raw, name), getattr(there, name)
            assert (one is None and other is None) or torch.equal(torch.from_numpy(one), other)
