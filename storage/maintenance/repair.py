"""Mending a published store: files that are wrong are made again, and put in only if they equal the published ones.

A store is never changed: a file that comes out differently, because another machine or library rounds or compresses
differently, is not put in.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import manifest, store_card
from gradshard.storage.formats.atomic import copy, write_bytes, write_text
from gradshard.storage.formats.bitplanes import Labels, Planes
from gradshard.storage.formats.croissant import croissant
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.row_table import write_row_table
from gradshard.storage.formats.sign_writer import StoreBuilder
from gradshard.storage.formats.store_paths import CARD, CROISSANT, MANIFEST, ROWS, shard_of
from gradshard.storage.maintenance.texts import read_limit, with_own_line_ends
from gradshard.storage.maintenance.verify import Fault

Compute = Callable[[int], tuple[Planes, Labels]]


def shards_of(faults: Iterable[Fault]) -> list[int]:
    """Return the shards that must be computed again."""
    return sorted({fault.shard for fault in faults if fault.shard is not None})


def repair(
    folder: Path,
    published: Manifest,
    faults: Iterable[Fault],
    *,
    scratch: Path,
    compute: Compute,
    advance: Callable[[int], None],
) -> list[Fault]:
    """Make the faulty files of a store again.

    Args:
        folder: the store.
        published: its manifest.
        faults: what ``verify`` found.
        scratch: an empty folder for the new files.
        compute: returns a shard's packed signs and labels, as ``StoreBuilder.write_shard`` takes them.
        advance: called with the number of shards just computed.

    Returns:
        The faults that could not be mended, with the reasons; none if every file is as it was published.
    """
    faults = list(faults)
    builder = StoreBuilder(scratch, published.spec)
    builder.create()
    left: list[Fault] = []
    for shard in shards_of(faults):
        builder.write_shard(shard, *compute(shard))
        advance(1)
        names = sorted({fault.file for fault in faults if fault.shard == shard})
        left += [fault for name in names for fault in _take(builder.store, folder, name, published)]
    for name in dict.fromkeys(fault.file for fault in faults if fault.shard is None):
        if name == MANIFEST:
            left += _mend_manifest(folder)
        elif name in published.files:
            if _mend_line_ends(folder, name, published):
                continue
            try:
                _describe(folder, builder.store, name, published)
            except GradshardError as error:
                left.append(Fault(name, f"could not be made again: {error}"))
                continue
            left += _take(builder.store, folder, name, published)
        else:
            left += [fault for fault in faults if fault.file == name]
    return left


def _describe(folder: Path, made: Path, name: str, published: Manifest) -> None:
    """Make a description of the store again, from its manifest and labels; the other files are made already.

    Raises:
        GradshardError: a label file that it depends on is missing or damaged.
    """
    spec, target = published.spec, made / name
    if name == CARD:
        write_text(target, store_card.card(spec, zeros=published.zeros, files=published.files))
    elif name == CROISSANT:
        described = {file: record for file, record in published.files.items() if file != CROISSANT}
        write_text(target, croissant(spec, files=described, versions=published.versions))
    elif name == ROWS:
        write_row_table(folder, spec, target)


def _mend_manifest(folder: Path) -> list[Fault]:
    """Restore the bytes of a manifest whose meaning is intact."""
    path = folder / MANIFEST
    content = path.read_bytes()
    if manifest.is_canonical(content):
        return [Fault(MANIFEST, "does not describe this store, which computing cannot mend: fetch the store again")]
    write_bytes(path, manifest.canonical(content))
    return []


def _mend_line_ends(folder: Path, name: str, published: Manifest) -> bool:
    """Restore the line ends of a text, whatever version wrote it; return false if something else is wrong with it."""
    path, record = folder / name, published.files[name]
    if not path.is_file():
        return False
    with path.open("rb") as file:
        own = with_own_line_ends(file.read(read_limit(name, record)), record)
    if own is not None:
        write_bytes(path, own)
    return own is not None


def _take(made: Path, folder: Path, name: str, published: Manifest) -> list[Fault]:
    if file_sha256(made / name) == published.files[name].sha256:
        copy(made / name, folder / name)
        return []
    here = ", ".join(f"{library} {version}" for library, version in sorted(published.versions.items()))
    return [
        Fault(
            name,
            f"comes out differently on this machine (the store was made with {here}), so it was left as it is: use "
            "those versions on a similar machine, or fetch the store again",
            shard_of(name),
        )
    ]
