"""Two stores held against each other: of all their copies, and of unlike numbers of them."""

import numpy as np
import pytest

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.maintenance.diff import compare
from tests.helpers.known_stores import publish, spec_of
from tests.helpers.projects import call
from tests.helpers.stores import rand_fgsm_record, random_signs, store_spec


@pytest.fixture
def built(small_dataset, tmp_path):
    """Build a store of so many copies of random signs, by their seeds."""

    def build(name, *seeds):
        builder = StoreBuilder(
            tmp_path / f"b-{name}", store_spec(small_dataset, attack=rand_fgsm_record(copies=len(seeds)))
        )
        builder.create()
        copies = [random_signs(700, 784, seed=seed) for seed in seeds]
        for shard in builder.missing():
            rows = builder.layout.shard_rows(shard)
            planes = np.stack([bitplanes.pack(signs[rows]) for signs in copies])
            builder.write_shard(shard, planes, small_dataset.train.read_labels(rows.start, rows.stop))
        builder.publish(tmp_path / name)
        return open_store(tmp_path / name)

    return build


def agreement(one, other):
    return compare(one, other, advance=lambda rows: None)[0]


def test_a_copy_that_differs_is_seen_whichever_it_is(built):
    one, same, other = built("one", 1, 2, 3), built("same", 1, 2, 3), built("other", 1, 2, 4)
    assert (agreement(one, same) == 1).all()
    found = agreement(one, other)
    assert 0.7 < found.mean() < 0.9, "two of three copies are alike"


def test_the_command_tells_unlike_numbers_of_copies(built, small_dataset, tmp_path, monkeypatch, capsys):
    built("one", 1), built("two", 1, 2)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "store", "diff", "one", "two") == 1
    assert "another content (0 labels differ, 1 and 2 copies)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [
        spec_of(80, chunk=4, shard=16),
        spec_of(120, chunk=4, shard=16),
        spec_of(90, chunk=4, shard=16, shape=(1, 27, 28)),
        spec_of(90, chunk=4, shard=16, shape=(1, 14, 56)),
    ],
)
def test_stores_that_claim_the_same_dataset_in_other_shapes_are_refused(tmp_path, monkeypatch, capsys, other):
    publish(tmp_path / "one", spec_of(90, chunk=4, shard=16))
    publish(tmp_path / "other", other)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "store", "diff", "one", "other") == 2
    claimed = (other.dataset.rows, *other.dataset.sample_shape)
    assert f"one and other name the same dataset, but claim rows of the shapes (90, 1, 28, 28) and {claimed}: " in (
        capsys.readouterr().err
    )
