"""Archives from strangers: whatever is no whole archive of one store is refused, and nothing of it is left."""

import json
import random
import shutil
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import SIZE_LIMIT
from gradshard.storage.formats.store_paths import CARD, MANIFEST
from tests.helpers.archives import VICTIM, imported
from tests.helpers.transfers import contents


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
def test_an_archive_of_anything_but_one_store_is_refused_as_a_whole(archive, refused_import, change, said):
    rewritten(archive, change)
    assert said in refused_import(archive)
    assert not Path("/tmp/gradshard-evil").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [VICTIM, MANIFEST])
def test_one_name_twice_is_refused(archive, refused_import, name):
    rewritten(archive, lambda members: [*members, *((e, c) for e, c in members if e.filename == name)])
    assert "holds one name twice" in refused_import(archive)


def test_an_encrypted_member_is_refused(archive, refused_import):
    for name in (VICTIM, MANIFEST):
        flagged(archive, name, flag=1)
        assert f"'{name}' is compressed or encrypted" in refused_import(archive)


def test_a_member_that_declares_another_size_is_refused(archive, refused_import):
    flagged(archive, VICTIM, size=(1 << 32) - 2)
    assert f"'{VICTIM}' is too large" in refused_import(archive)


def test_a_manifest_may_not_promise_files_larger_than_shards_can_be(archive, refused_import):
    """Were it believed, whoever wrote it could fill the disk."""

    def promise(content):
        manifest = json.loads(content)
        manifest["files"][VICTIM]["size"] = 1 << 40
        return json.dumps(manifest).encode()

    rewritten(archive, replaced(MANIFEST, promise))
    assert "declares a larger file" in refused_import(archive)


def test_a_truncated_archive_is_refused(archive, refused_import):
    content = archive.read_bytes()
    for length in (0, 1, 21, len(content) // 2, len(content) - 1):
        archive.write_bytes(content[:length])
        assert "is not a whole archive of a sign store" in refused_import(archive)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(17), b"no zip" * 100])
def test_what_is_no_zip_file_is_refused(archive, refused_import, content):
    archive.write_bytes(content)
    assert "is not a whole archive of a sign store" in refused_import(archive)


@pytest.mark.parametrize("name", [b"\xff\xfe.txt", b"manifest.jso\xff"])
def test_a_name_that_is_no_text_is_refused(archive, refused_import, name):
    rewritten(archive, added("x" * (len(name) - 2) + "é"))
    content = archive.read_bytes().replace(("x" * (len(name) - 2) + "é").encode(), name)
    assert name in content
    archive.write_bytes(content)
    assert "is not a whole archive of a sign store" in refused_import(archive)


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
def test_a_table_of_contents_out_of_proportion_is_refused_before_it_is_read(archive, refused_import, end):
    archive.write_bytes(bytes(200_000) + end)
    tracemalloc.start()
    try:
        refused_import(archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", [VICTIM, MANIFEST])
def test_a_zip_bomb_is_refused_without_being_unpacked(archive, refused_import, name):
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
        assert "is compressed or encrypted" in refused_import(archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("offset", [1, 1 << 63, (1 << 64) - 1])
def test_offsets_outside_the_archive_are_refused(archive, refused_import, offset):
    whole = archive.read_bytes()
    entries, size = struct.unpack_from("<HI", whole, len(whole) - 12)
    archive.write_bytes(whole[:-22] + large_ending(entries, size, offset))
    assert "is not a whole archive of a sign store" in refused_import(archive)


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
