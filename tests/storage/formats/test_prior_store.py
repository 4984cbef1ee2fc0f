"""What a run writes back is there for its checkpoint, whichever moment it was killed at, and costs what changed."""

import shutil

import numpy as np
import pytest
import zarr

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.prior_store import PriorStore
from tests.helpers.stores import random_signs

ROWS, PIXELS = 300, 35


@pytest.fixture
def generations(tmp_path):
    """Nine generations, 70 rows changed in each but the first, and a function that opens their store."""
    planes = np.full((ROWS, 2, bitplanes.packed_bytes(PIXELS)), bitplanes.FILL_BYTE, dtype=np.uint8)
    found, draws = {}, np.random.default_rng(0)
    for step in range(25, 250, 25):
        changed = np.sort(draws.choice(ROWS, 70, replace=False))
        planes[changed] = bitplanes.pack(random_signs(70, PIXELS, seed=step))
        found[step] = planes.copy(), changed
    return found, lambda: PriorStore(tmp_path / "priors", rows=ROWS, pixels=PIXELS)


def save(store, generations, *steps):
    for step in steps:
        planes, changed = generations[step]
        store.save(step, planes.__getitem__, changed)


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "priors").iterdir())


def test_every_generation_is_read_as_it_was(generations):
    saved, opened = generations
    save(opened(), saved, *saved)
    for step, (planes, _) in saved.items():
        assert np.array_equal(opened().load(step), planes)


def test_increments_end_in_a_whole_generation_before_they_hold_as_many_rows(generations, tmp_path):
    saved, opened = generations
    save(opened(), saved, *saved)
    assert [name for name in names(tmp_path) if name.endswith(".zarr")] == ["00000125.zarr"]
    assert len(names(tmp_path)) == len(saved)


def test_a_whole_generation_is_a_plain_zarr_group(generations, tmp_path):
    saved, opened = generations
    save(opened(), saved, 25, 50, 75, 100, 125)
    array = zarr.open_group(tmp_path / "priors/00000125.zarr", mode="r")["signs"]
    assert np.array_equal(array[:], saved[125][0])


def test_only_what_a_generation_needs_is_kept(generations, tmp_path):
    saved, opened = generations
    store = opened()
    save(store, saved, 25, 50)
    store.remove_others()
    assert names(tmp_path) == ["00000025.safetensors", "00000050.safetensors"]
    save(store, saved, 75, 100, 125, 150)
    (tmp_path / "priors/00000175.new").mkdir()
    (tmp_path / "priors/.00000175.safetensors.x.tmp").touch()
    store.remove_others()
    assert names(tmp_path) == ["00000125.zarr", "00000150.safetensors"]
    assert np.array_equal(opened().load(150), saved[150][0])


@pytest.mark.parametrize("killed_at", [50, 125, 150])
def test_a_generation_that_no_checkpoint_came_to_name_leaves_the_one_before(generations, tmp_path, killed_at):
    saved, opened = generations
    steps = [step for step in saved if step <= killed_at]
    save(opened(), saved, *steps)
    resumed = opened()
    before = steps[-2]
    assert np.array_equal(resumed.load(before), saved[before][0])
    resumed.remove_others()
    save(resumed, saved, *(step for step in saved if step > before))
    undisturbed = PriorStore(tmp_path / "undisturbed", rows=ROWS, pixels=PIXELS)
    save(undisturbed, saved, *saved)
    undisturbed.remove_others()
    resumed.remove_others()
    for path in (tmp_path / "undisturbed").rglob("*"):
        if path.is_file():
            assert (tmp_path / "priors" / path.relative_to(tmp_path / "undisturbed")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("lost", ["00000125.zarr", "00000150.safetensors", "00000125.zarr/signs/c/1"])
def test_a_lost_file_is_told_and_never_read_as_signs(generations, tmp_path, lost):
    saved, opened = generations
    save(opened(), saved, 25, 50, 75, 100, 125, 150, 175)
    path = tmp_path / "priors" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Of a whole generation only the newest counts: the increments before it are there too.
    opened_store = opened()
    opened_store.folder.joinpath("00000100.safetensors").unlink()
    with pytest.raises(GradshardError, match=r"is missing or damaged: remove .* and run the same command again"):
        opened_store.load(175)


def test_a_damaged_shard_is_told(generations, tmp_path):
    saved, opened = generations
    save(opened(), saved, 25, 50, 75, 100, 125)
    path = tmp_path / "priors/00000125.zarr/signs/c/0/0/0"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(GradshardError, match="damaged"):
        opened().load(125)


def test_before_anything_was_saved_no_row_holds_signs(generations):
    _, opened = generations
    assert (opened().load(0) == bitplanes.FILL_BYTE).all()
    opened().remove_others()
