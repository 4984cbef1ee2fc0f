import os
from collections import Counter

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest import file_index
from gradshard.storage.ingest.class_order import misnumbered
from gradshard.storage.ingest.file_index import Entry, FileIndex, scan, write_index
from gradshard.storage.ingest.row_order import row_order


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def files(folder, labels, split="train"):
    return [(entry.file, entry.label) for entry in scan(folder, split, labels)]


def test_classes_and_files_come_in_the_order_of_code_points(tmp_path):
    touch(tmp_path, "train/b/10.jpg", "train/b/2.jpg", "train/B/x.png", "train/ä/1.bmp", "train/b/a/deep.webp")
    names = file_index.class_folders(tmp_path / "train")
    assert names == ["B", "b", "ä"]
    assert files(tmp_path, {name: label for label, name in enumerate(names)}) == [
        ("train/B/x.png", 0),
        ("train/b/10.jpg", 1),
        ("train/b/2.jpg", 1),
        ("train/b/a/deep.webp", 1),
        ("train/ä/1.bmp", 2),
    ]


def test_hidden_and_other_files_are_no_images(tmp_path):
    touch(tmp_path, "train/a/1.JPEG", "train/a/._1.jpg", "train/a/notes.txt", "train/a/.hid/2.jpg", "train/a/Thumbs.db")
    touch(tmp_path, "train/.cache/3.jpg", "train/4.jpg")
    assert files(tmp_path, {"a": 0}) == [("train/a/1.JPEG", 0)]


@pytest.mark.parametrize("litter", ["@eaDir", "__MACOSX", "lost+found", "System Volume Information"])
def test_folders_that_systems_leave_are_neither_classes_nor_hold_images(tmp_path, litter):
    touch(tmp_path, "train/a/1.png", "train/c/1.png", f"train/{litter}/1.png", f"train/a/{litter}/1.png/THUMB.jpg")
    names = file_index.class_folders(tmp_path / "train")
    assert names == ["a", "c"]
    assert files(tmp_path, {"a": 0, "c": 1}) == [("train/a/1.png", 0), ("train/c/1.png", 1)]


def test_images_that_are_passed_over_are_counted(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/a/2.GIF", "train/a/deep/3.gif", "train/a/4.avif", "train/a/notes.txt")
    touch(tmp_path, "train/5.png", "train/list.txt")
    passed_over = Counter()
    assert [entry.file for entry in scan(tmp_path, "train", {"a": 0}, passed_over)] == ["train/a/1.png"]
    assert passed_over == {".gif": 2, ".avif": 1, "in no folder of a class": 1}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["1", "10", "2"], "10"),
        (["0", "1", "2"], None),
        (["01", "02", "10"], None),
        (["1", "10", "2", "b"], None),
    ],
)
def test_numbers_that_are_sorted_as_text_are_found(names, found):
    assert misnumbered(names) == found


def test_links_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a").symlink_to(tmp_path / "elsewhere")
    assert files(tmp_path, {"a": 0}) == [("train/a/1.png", 0)]


@pytest.mark.parametrize("place", ["train/b", "train/a/more"])
@pytest.mark.parametrize("target", ["/not/there", "b", "more"])
def test_a_link_that_may_be_a_folder_and_leads_nowhere_is_refused(tmp_path, place, target):
    touch(tmp_path, "train/a/1.png", "train/c/1.png")
    (tmp_path / place).symlink_to(target)
    with pytest.raises(GradshardError, match=f"{place} is a link to {target}, which is not there: mount or restore"):
        files(tmp_path, {name: label for label, name in enumerate(file_index.class_folders(tmp_path / "train"))})


def test_a_class_that_is_linked_from_a_disk_that_is_not_mounted_moves_no_labels(tmp_path):
    touch(tmp_path, "disk/b/1.png", "train/a/1.png", "train/c/1.png")
    (tmp_path / "train/b").symlink_to(tmp_path / "disk/b")
    assert file_index.class_folders(tmp_path / "train") == ["a", "b", "c"]
    (tmp_path / "disk/b").rename(tmp_path / "disk/gone")
    with pytest.raises(GradshardError, match=r"train/b is a link to .*disk/b, which is not there"):
        file_index.class_folders(tmp_path / "train")


def test_an_image_that_is_a_link_leading_nowhere_is_listed(tmp_path):
    touch(tmp_path, "train/a/1.png")
    for name, target in (("2.png", "missing.png"), ("3.png", "3.png")):
        (tmp_path / "train/a" / name).symlink_to(target)
    assert [name for name, _ in files(tmp_path, {"a": 0})] == [f"train/a/{number}.png" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("place", "target", "named"),
    [
        ("train/a/deep/back", "..", "train/a/deep/back"),
        ("train/b", ".", "train/b"),
        ("train/b", "../..", "train/b"),
        ("train/b", "/", "train/b"),
        ("train/a/all", "..", "train/a/all"),
    ],
)
def test_a_loop_of_links_is_refused_by_the_link(tmp_path, place, target, named):
    touch(tmp_path / "root", "train/a/1.png", "train/a/deep/2.png")
    (tmp_path / "root" / place).symlink_to(target)
    with pytest.raises(GradshardError) as error:
        files(tmp_path / "root", {"a": 0, "b": 1})
    assert str(error.value) == f"{tmp_path}/root/{named} leads back to a folder that it lies in: remove the link"


def test_a_folder_that_is_linked_twice_is_no_loop(tmp_path):
    touch(tmp_path, "train/a/1.png")
    (tmp_path / "train/b").symlink_to("a")
    assert files(tmp_path, {"a": 0, "b": 1}) == [("train/a/1.png", 0), ("train/b/1.png", 1)]


def test_a_test_folder_may_lack_classes_but_has_no_others(tmp_path):
    touch(tmp_path, "val/b/1.png")
    assert files(tmp_path, {"a": 0, "b": 1}, "val") == [("val/b/1.png", 1)]
    with pytest.raises(GradshardError, match="there is no class b in the training images"):
        files(tmp_path, {"a": 0}, "val")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    with pytest.raises(GradshardError, match=r"caf.*\.jpg is not UTF-8: rename it"):
        files(tmp_path, {"a": 0})


def test_a_listing_gives_its_entries_back_by_number(tmp_path):
    entries = [Entry(f"train/{'ü' * (i % 5)}/{i}.jpg", i % 7, 1 << 40, i * 10**14) for i in range(9000)]
    listed = write_index(tmp_path / "l", entries)
    assert list(listed) == entries
    numbers = np.random.default_rng(0).permutation(9000)[:50]
    assert FileIndex(tmp_path / "l").take(numbers) == [entries[n] for n in numbers]
    labels = [entry.label for entry in entries]
    assert listed.counts(12).tolist() == [labels.count(label) for label in range(12)]
    assert list(write_index(tmp_path / "none", [])) == []


def test_the_digest_of_a_listing_covers_names_labels_sizes_and_order_but_no_times():
    entries = [Entry("a.jpg", 0, 5, 1), Entry("b.jpg", 1, 6, 2)]
    base = file_index.content_digest(entries)
    assert file_index.content_digest([entry._replace(modified=9) for entry in entries]) == base
    changed = [
        [entries[0]._replace(file="c.jpg"), entries[1]],
        [entries[0]._replace(label=1), entries[1]],
        [entries[0]._replace(size=6), entries[1]],
        entries[::-1],
        entries[:1],
    ]
    assert len({base, *map(file_index.content_digest, changed)}) == 6


@pytest.mark.parametrize("seed", range(20))
def test_an_order_without_some_files_is_the_whole_order_but_for_their_places_and_the_end(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    out = np.flatnonzero(rng.random(n) < rng.random())
    whole = row_order(n, seed=(seed, 0), left_out=out[:0])
    order = row_order(n, seed=(seed, 0), left_out=out)
    assert sorted(whole) == list(range(n))
    assert sorted(order) == sorted(set(range(n)) - set(out))
    kept = ~np.isin(whole[: len(order)], out)
    assert np.array_equal(order[kept], whole[: len(order)][kept])


def test_orders_of_other_seeds_and_splits_differ():
    orders = {tuple(row_order(50, seed=seed, left_out=np.empty(0, int))) for seed in [(0, 0), (1, 0), (0, 1), (0, 0)]}
    assert len(orders) == 3


def test_neighbouring_rows_are_of_mixed_classes():
    """In the order of the folders a chunk would hold one class."""
    labels = np.repeat(np.arange(10), 200)
    order = row_order(2000, seed=(0, 0), left_out=np.empty(0, int))
    per_chunk = [len(set(chunk)) for chunk in labels[order].reshape(-1, 50)]
    assert min(per_chunk) >= 8
