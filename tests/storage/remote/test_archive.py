"""A store as one file, and archives from strangers."""

import json
import random
import shutil
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import SIZE_LIMIT
from gradshard.storage.formats.store_paths import CARD, MANIFEST, signs_file
from gradshard.storage.remote.archive import export_archive, import_archive
from tests.helpers.projects import call
from tests.helpers.stores import build_store
from tests.helpers.transfers import contents, forbidden

VICTIM = signs_file(3)


def exported(store, target):
    seen = []
    export_archive(store, target, advance=seen.append)
    return seen


def imported(archive, target, digest=None):
    seen = []
    import_archive(archive, target, digest=digest, on_wait=forbidden, advance=seen.append)
    return seen


@pytest.fixture
def archive(source, tmp_path):
    """A store's archive, with nothing else in its folder."""
    path = tmp_path / "inbox" / "M.zip"
    path.parent.mkdir()
    exported(source, path)
    return path


@pytest.fixture
def refused(monkeypatch, capsys):
    """Import an archive by the command line: refused in one sentence, nothing is left, and the sentence is given."""

    def run(archive, *options):
        before = contents(archive.parent)
        target = archive.parent / "imported" / "M.zarr"
        capsys.readouterr()
        code = call(monkeypatch, "store", "import", str(archive), str(target), *options)
        err = capsys.readouterr().err
        assert code == 2, err
        assert err.startswith("gradshard: ")
        assert err.count("\n") == 1
        assert not target.exists()
        after = contents(archive.parent)
        # What was checked already waits in a folder of its own, for the next attempt.
        assert {name for name in after if not name.startswith("imported/.partial/import-M")} == before.keys()
        assert not list(archive.parent.parent.rglob("*evil*"))
        return err

    return run


def rewritten(archive, change):
    """Write an archive again, member by member, as ``change`` has it: it gives entries and their content."""
    with zipfile.ZipFile(archive) as old:
        members = [(old.getinfo(name), old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as new:
        for entry, content in change(members):
            new.writestr(entry, content)


def added(name, content=b"evil", mode=stat.S_IFREG | 0o644):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return lambda members: [*members, (entry, content)]


def replaced(name, how):
    """Change the content of one member."""
    return lambda members: [(entry, how(content) if entry.filename == name else content) for entry, content in members]


def squeezed(members):
    """One member is compressed."""
    for entry, _ in members:
        if entry.filename == VICTIM:
            entry.compress_type = zipfile.ZIP_DEFLATED
    return members


def linked(members):
    """One member is a link, to a file outside."""
    for entry, content in members:
        if entry.filename == CARD:
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            yield entry, b"/etc/passwd"
        else:
            yield entry, content


def flagged(archive, name, *, flag=0, size=None):
    """Change the flags or the sizes in a member's two headers."""
    with zipfile.ZipFile(archive) as file:
        local = file.getinfo(name).header_offset
    content = bytearray(archive.read_bytes())
    central = next(
        at
        for at in places(bytes(content), b"PK\x01\x02")
        if content[at + 46 : at + 46 + len(name)] == name.encode() and content[at + 28] == len(name)
    )
    for at, sizes in ((local + 6, local + 18), (central + 8, central + 20)):
        content[at] |= flag
        if size is not None:
            struct.pack_into("<II", content, sizes, size, size)
    archive.write_bytes(content)


def places(content, pattern):
    at = content.find(pattern)
    while at >= 0:
        yield at
        at = content.find(pattern, at + 1)


def test_a_store_goes_into_one_file_and_back_byte_for_byte(source, small_store, archive, tmp_path):
    assert sum(imported(archive, tmp_path / "back.zarr")) == small_store.manifest.size
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert sum(exported(source, tmp_path / "again.zip")) == small_store.manifest.size


def test_equal_stores_give_equal_archives(small_dataset, source, archive, tmp_path):
    for name in ("b1", "b2"):
        build_store(tmp_path / name, small_dataset, tmp_path / f"{name}.zarr")
    (tmp_path / "b1.zarr" / CARD).chmod(0o600)
    (tmp_path / "b1.zarr" / CARD).touch()
    exported(tmp_path / "b1.zarr", tmp_path / "b1.zip")
    assert (tmp_path / "b1.zip").read_bytes() == archive.read_bytes()
    imported(archive, tmp_path / "back.zarr")
    exported(tmp_path / "back.zarr", tmp_path / "back.zip")
    assert (tmp_path / "back.zip").read_bytes() == archive.read_bytes()


def test_the_archive_of_another_store_is_another_file(other_store, archive, tmp_path):
    exported(Path(other_store.where), tmp_path / "N.zip")
    assert (tmp_path / "N.zip").read_bytes() != archive.read_bytes()


def test_zarr_opens_an_archive_as_it_is(small_store, archive):
    group = zarr.open_group(ZipStore(archive, mode="r"), mode="r")
    assert np.array_equal(group["signs"][:], small_store.load())
    assert np.array_equal(group["labels"][:], small_store.load_labels())


def test_an_archive_that_is_there_is_not_overwritten(source, archive, monkeypatch, capsys):
    archive.write_bytes(b"mine")
    assert call(monkeypatch, "store", "export", str(source), str(archive)) == 2
    assert "is there already" in capsys.readouterr().err
    assert archive.read_bytes() == b"mine"


def test_a_damaged_store_is_not_exported(source, tmp_path):
    content = (source / VICTIM).read_bytes()
    (source / VICTIM).write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    (tmp_path / "outbox").mkdir()
    with pytest.raises(GradshardError, match=f"{VICTIM} is damaged"):
        exported(source, tmp_path / "outbox" / "M.zip")
    assert list((tmp_path / "outbox").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (added("../evil"), "'../evil', which is no file of the store"),
        (added("signs/../../evil"), "which is no file of the store"),
        (added("/tmp/gradshard-evil"), "which is no file of the store"),
        (added("notes.txt"), "'notes.txt', which is no file of the store"),
        (added("\x1b[31m"), r"'\x1b[31m', which is no file of the store"),
        (added("signs/c/3/0/0/", b"", stat.S_IFDIR | 0o755), "which is no file of the store"),
        (added("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "'link', which is no file of the store"),
        (linked, f"'{CARD}' is a link or no file"),
        (lambda members: [entry for entry in members if entry[0].filename != VICTIM], f"lacks {VICTIM}"),
        (lambda members: [entry for entry in members if entry[0].filename != MANIFEST], f"holds no {MANIFEST}"),
        (lambda members: [], f"holds no {MANIFEST}"),
        (squeezed, f"'{VICTIM}' is compressed or encrypted"),
        (replaced(VICTIM, lambda content: content + b"x"), f"'{VICTIM}' is too large"),
        (replaced(VICTIM, lambda content: content[:-1]), f"{VICTIM} has "),
        (replaced(VICTIM, lambda content: content[:-1] + b"x"), f"{VICTIM} is not the file of the manifest"),
        (replaced(MANIFEST, lambda content: content + b" " * SIZE_LIMIT), f"'{MANIFEST}' is too large"),
        (replaced(MANIFEST, lambda content: content.replace(b'"zeros"', b'"heros"')), "is not a manifest"),
        (replaced(MANIFEST, lambda content: content.replace(b'"M"', b'"Z"')), "was changed after it was written"),
    ],
    ids=[
        *("parent folder", "hidden parent folder", "absolute path", "extra file", "control characters", "folder"),
        *("extra link", "link", "missing file", "no manifest", "nothing", "compressed", "too long", "too short"),
        *("wrong bytes", "large manifest", "no real manifest", "changed manifest"),
    ],
)
def test_an_archive_of_anything_but_one_store_is_refused_as_a_whole(archive, refused, change, said):
    rewritten(archive, change)
    assert said in refused(archive)
    assert not Path("/tmp/gradshard-evil").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [VICTIM, MANIFEST])
def test_one_name_twice_is_refused(archive, refused, name):
    rewritten(archive, lambda members: [*members, *((e, c) for e, c in members if e.filename == name)])
    assert "holds one name twice" in refused(archive)


def test_an_encrypted_member_is_refused(archive, refused):
    for name in (VICTIM, MANIFEST):
        flagged(archive, name, flag=1)
        assert f"'{name}' is compressed or encrypted" in refused(archive)


def test_a_member_that_declares_another_size_is_refused(archive, refused):
    flagged(archive, VICTIM, size=(1 << 32) - 2)
    assert f"'{VICTIM}' is too large" in refused(archive)


def test_a_manifest_may_not_promise_files_larger_than_shards_can_be(archive, refused):
    """Were it believed, whoever wrote it could fill the disk."""

    def promise(content):
        manifest = json.loads(content)
        manifest["files"][VICTIM]["size"] = 1 << 40
        return json.dumps(manifest).encode()

    rewritten(archive, replaced(MANIFEST, promise))
    assert "declares a larger file" in refused(archive)


def test_a_truncated_archive_is_refused(archive, refused):
    content = archive.read_bytes()
    for length in (0, 1, 21, len(content) // 2, len(content) - 1):
        archive.write_bytes(content[:length])
        assert "is not a whole archive of a sign store" in refused(archive)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(17), b"no zip" * 100])
def test_what_is_no_zip_file_is_refused(archive, refused, content):
    archive.write_bytes(content)
    assert "is not a whole archive of a sign store" in refused(archive)


@pytest.mark.parametrize("name", [b"\xff\xfe.txt", b"manifest.jso\xff"])
def test_a_name_that_is_no_text_is_refused(archive, refused, name):
    rewritten(archive, added("x" * (len(name) - 2) + "é"))
    content = archive.read_bytes().replace(("x" * (len(name) - 2) + "é").encode(), name)
    assert name in content
    archive.write_bytes(content)
    assert "is not a whole archive of a sign store" in refused(archive)


def ending(entries, size, offset, disks=0):
    return struct.pack("<4sIHHIIH", b"PK\x05\x06", disks, entries, entries, size, offset, 0)


def large_ending(entries, size, offset):
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, offset)
    return (
        record
        + struct.pack("<4sIQI", b"PK\x06\x07", 0, min(offset + size, (1 << 64) - 1), 1)
        + ending(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    )


@pytest.mark.parametrize(
    "end",
    [
        ending(1, 100_000, 0),
        ending(0xFFFF, 1 << 31, 0),
        # The mark of an ending within the ending: read from there, the table would be small.
        ending(0, 1 << 27, 0, disks=struct.unpack("<I", b"PK\x05\x06")[0]),
        large_ending(1 << 40, 1 << 50, 0),
        # An ending in the comment of another.
        ending(1, 100_000, 0)[:-2] + struct.pack("<H", 22) + ending(1, 100, 0),
    ],
    ids=["of one file", "of many files", "hidden", "of a large archive", "in a comment"],
)
def test_a_table_of_contents_out_of_proportion_is_refused_before_it_is_read(archive, refused, end):
    archive.write_bytes(bytes(200_000) + end)
    tracemalloc.start()
    try:
        refused(archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", [VICTIM, MANIFEST])
def test_a_zip_bomb_is_refused_without_being_unpacked(archive, refused, name):
    """256 MiB of zeros in 256 kB."""

    def bomb(members):
        for entry, content in members:
            if entry.filename == name:
                entry.compress_type = zipfile.ZIP_DEFLATED
                yield entry, bytes(1 << 28)
            else:
                yield entry, content

    rewritten(archive, bomb)
    assert archive.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        assert "is compressed or encrypted" in refused(archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("offset", [1, 1 << 63, (1 << 64) - 1])
def test_offsets_outside_the_archive_are_refused(archive, refused, offset):
    whole = archive.read_bytes()
    entries, size = struct.unpack_from("<HI", whole, len(whole) - 12)
    archive.write_bytes(whole[:-22] + large_ending(entries, size, offset))
    assert "is not a whole archive of a sign store" in refused(archive)


@pytest.mark.slow
def test_whatever_bytes_are_changed_the_store_is_whole_or_refused(archive, source, tmp_path):
    """In the headers, where a program that reads them may be led astray; 150 changes of one to four bytes."""
    whole, expected, chance = archive.read_bytes(), contents(source), random.Random(0)
    directory = whole.index(b"PK\x01\x02")
    headers = [at for start in places(whole, b"PK\x03\x04") for at in range(start, start + 30)]
    headers += [*range(directory, len(whole)), *range(len(whole) - 22, len(whole))] * 10
    refusals = 0
    for number in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.choice(headers)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        archive.write_bytes(content)
        target = tmp_path / "fuzz" / f"{number}.zarr"
        try:
            imported(archive, target)
        except GradshardError:
            refusals += 1
            assert not target.exists()
        else:
            assert contents(target) == expected
        shutil.rmtree(tmp_path / "fuzz", ignore_errors=True)
    assert refusals > 50


@pytest.mark.parametrize("obstacle", ["another store", "a folder", "an empty folder"])
def test_an_import_overwrites_nothing(archive, other_store, tmp_path, obstacle):
    target = tmp_path / "target.zarr"
    if obstacle == "another store":
        shutil.copytree(other_store.where, target)
    else:
        target.mkdir()
        if obstacle == "a folder":
            (target / "notes.txt").write_text("mine")
    before = contents(target)
    with pytest.raises(GradshardError, match="is there already"):
        imported(archive, target)
    assert contents(target) == before


def test_the_same_store_is_not_unpacked_twice(archive, small_store, tmp_path):
    imported(archive, tmp_path / "back.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")}
    assert imported(archive, tmp_path / "back.zarr") == [small_store.manifest.size]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "back.zarr").rglob("*")} == before


def test_another_store_than_the_one_asked_for_is_refused(archive, source, other_store, small_store, refused, tmp_path):
    digest = small_store.manifest.digest
    for wrong in (other_store.manifest.digest, digest[:11]):
        assert "check the address" in refused(archive, "--digest", wrong)
    imported(archive, tmp_path / "back.zarr", digest=digest[:12])
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_an_import_that_stops_in_the_middle_leaves_no_store_and_goes_on(archive, source, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_archive(archive, tmp_path / "back.zarr", digest=None, on_wait=forbidden, advance=stop)
    assert not (tmp_path / "back.zarr").exists()
    imported(archive, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_what_lies_in_the_way_of_an_archive_is_told_in_one_sentence(tmp_path, refused):
    (tmp_path / "inbox").mkdir()
    assert "No such file" in refused(tmp_path / "inbox" / "none.zip")
    (tmp_path / "inbox" / "folder.zip").mkdir()
    assert "directory" in refused(tmp_path / "inbox" / "folder.zip")


def test_an_archive_may_follow_other_bytes(archive, source, tmp_path):
    """As one that was put behind a program does, which zip files allow."""
    archive.write_bytes(b"#!/bin/sh\n" + archive.read_bytes())
    imported(archive, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
