"""Moving stores: push to a folder or URL, pull from one.

Both can be interrupted and started again, and write the manifest last. A pull checks every byte that arrives; a push
checks what it sent by size, and by digest in a folder of this machine or on the hub. Another store that is there
already is left alone; in the same store, files that are missing or fail the check are mended.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import remove_strays, sync, write_bytes
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import FileRecord, Manifest, canonical, parse_manifest, read_manifest
from gradshard.storage.formats.sign_reader import open_files
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from gradshard.storage.maintenance.signatures import is_bundle, read_signature, vouched_by
from gradshard.storage.maintenance.texts import damaged
from gradshard.storage.remote.cache import fetch
from gradshard.storage.remote.claims import PENDING, foreign_files, is_claimed, is_published
from gradshard.storage.remote.hub_push import push_to_hub
from gradshard.storage.remote.location import UNFINISHED, Location, manifest_bytes, open_location, shown
from gradshard.storage.remote.signature import vouched_signature
from gradshard.storage.workspace import workspace

Advance = Callable[[int], None]

_CONNECTIONS = 4
_DIGEST_CHARACTERS = 12
# Patterns of what a push that was killed at once leaves.
_UNFINISHED_CLAIMS = (f"{PENDING}{UNFINISHED}", f".{PENDING}.*.tmp")


def push(store: Path, place: str, *, advance: Advance) -> Manifest:
    """Copy a published store to a path or URL.

    Args:
        store: the store's folder.
        place: the path or URL that will be the store's folder.
        advance: called with the number of further bytes that are in place.

    Raises:
        GradshardError: the store lacks a file or is damaged, something else is at the place, or the connection failed.
    """
    manifest, location = read_manifest(store), open_location(place)
    if location.protocol in ("http", "https"):
        raise GradshardError(
            f"{shown(place)}: nothing can be pushed over HTTP: push to the server's folder or by ssh://"
        )
    if location.protocol == "hf":
        push_to_hub(store, manifest, location, advance=advance)
        return manifest
    published = is_published(location, manifest)
    if not published:
        _claim(location, manifest)

    def send(name: str) -> None:
        if not _has(location, name, manifest.files[name]):
            _send(store, location, name, manifest.files[name])
        advance(manifest.files[name].size)

    _each(send, manifest.files)
    _send_signature(store, location)
    content = canonical((store / MANIFEST).read_bytes())
    if not published or manifest_bytes(location) != content:
        _unless_done(lambda: location.write(MANIFEST, content), lambda: is_published(location, manifest))
    location.remove_leftovers(PENDING)
    return manifest


def pull(
    place: str,
    target: Path,
    *,
    digest: str | None,
    on_wait: Callable[[str], None],
    advance: Advance,
    signer: Path | None = None,
) -> Manifest:
    """Fetch the store at a path or URL into the folder ``target``, which appears once it is whole.

    Args:
        place: where the store is.
        target: the folder it becomes; files fetched before an interruption are kept beside it, in ``.partial``.
        digest: the digest that the store must have, or the first characters of it.
        on_wait: see ``workspace``.
        advance: called with the number of further bytes that are in place.
        signer: a file with the public key or certificates of who must have signed the store, which is
            checked before any file is fetched.

    Raises:
        NotVouchedError: ``signer`` did not sign what is there.
        GradshardError: there is no valid store, it is not the one of ``digest`` or of ``target``, a file is damaged or
            missing, or the connection failed.
    """
    location = open_location(place)
    content = manifest_bytes(location)
    with vouched_by(signer):
        manifest = parse_manifest(content, where=location.url)
        check_digest(manifest, digest, where=location.url)
        signature = vouched_signature(location, manifest, content, signer, where=location.url)
        arriving = Arriving(manifest, content, signature, vouched=signer is not None)
        with receiving("pull", arriving, target, on_wait=on_wait) as folder:

            def get(name: str) -> None:
                record = manifest.files[name]
                if not is_whole(folder / name, record):
                    _fetch(location, name, record, folder)
                advance(record.size)

            _each(get, manifest.files)
    return manifest


@dataclass(frozen=True)
class Arriving:
    """A store that arrives: its manifest, the manifest's bytes as they came, and its signature if it has one.

    ``vouched`` says that the signature was checked against the signer whom the user named.
    """

    manifest: Manifest
    content: bytes
    signature: bytes | None
    vouched: bool = False


@contextmanager
def receiving(how: str, arriving: Arriving, target: Path, *, on_wait: Callable[[str], None]) -> Iterator[Path]:
    """Yield the folder in which a store's files are gathered; on a clean exit it becomes the store ``target``.

    It is ``target`` itself if the same store is there already: missing files are added, and the signature if there was
    none or this one is vouched for. After an interruption the folder keeps its files.

    Raises:
        GradshardError: something else is at ``target``, or the arrays are not those that the manifest describes.
    """
    if is_there(target, arriving.manifest):
        yield target
        _mend_beside_files(target, arriving)
        return
    recipe, root = {"digest": arriving.manifest.digest}, target.parent / ".partial"
    with workspace(f"{how}-{target.name}", recipe, on_wait=on_wait, root=root) as work:
        if work.waited and is_there(target, arriving.manifest):
            yield target
            _mend_beside_files(target, arriving)
            return
        yield work.folder / "store"
        _publish(work.folder / "store", arriving, target)


def _publish(folder: Path, arriving: Arriving, target: Path) -> None:
    """Make a folder that holds all files of a store, already checked, the store ``target``.

    Args:
        folder: on the target's file system; it is renamed.
        arriving: the store.
        target: where nothing is yet.

    Raises:
        GradshardError: the arrays are not those that the manifest describes, or another store appeared meanwhile.
    """
    open_files(Folder(folder), arriving.manifest, where=str(target))
    # From a killed process: unfinished files, and a signature older than the present one.
    remove_strays(folder, keep=arriving.manifest.files)
    _add_signature(folder, arriving.signature)
    write_bytes(folder / MANIFEST, arriving.content)
    try:
        folder.rename(target)  # fails if a folder with files is there
    except OSError:
        if not is_there(target, arriving.manifest):
            raise
    sync(target.parent)


def is_there(target: Path, manifest: Manifest) -> bool:
    """Tell whether a store is at ``target`` already.

    Raises:
        GradshardError: something else is there.
    """
    if not target.exists():
        if target.is_symlink():
            raise GradshardError(f"{target} is a link to {target.readlink()}, where nothing is: remove it")
        return False
    found = read_manifest(target) if (target / MANIFEST).exists() else None
    if found is None or found.digest != manifest.digest:
        what = f"the store {found.digest[:12]}" if found else "no sign store"
        raise GradshardError(
            f"{target} is there already and is {what}, not {manifest.digest[:12]}: it is not overwritten; remove it or "
            "choose another place"
        )
    return True


def _mend_beside_files(store: Path, arriving: Arriving) -> None:
    """Mend what the manifest of a store that is there does not name: the manifest's own bytes, and the signature."""
    content = canonical(arriving.content)
    if (store / MANIFEST).read_bytes() != content:
        write_bytes(store / MANIFEST, content)
    there = read_signature(Folder(store))
    if there is None or (arriving.vouched and there != arriving.signature):
        _add_signature(store, arriving.signature)


def _add_signature(store: Path, signature: bytes | None) -> None:
    if signature is not None and is_bundle(signature):
        write_bytes(store / SIGNATURE, signature)


def check_digest(manifest: Manifest, digest: str | None, *, where: str) -> None:
    """Check that a store is the one that was asked for.

    Raises:
        GradshardError: it is another one, or the digest is too short to tell.
    """
    if digest is None:
        return
    check_long_enough(digest)
    if not manifest.digest.startswith(digest.lower()):
        raise GradshardError(
            f"{where} is the store {manifest.digest[: len(digest)]}, not {digest}: check the address, or whether its "
            "owner published a new one"
        )


def check_long_enough(digest: str) -> None:
    """Refuse the first characters of a digest if they are too few to name one store.

    Raises:
        GradshardError: they are.
    """
    if len(digest) < _DIGEST_CHARACTERS:
        raise GradshardError(f"the digest {digest} is too short to name a store: give {_DIGEST_CHARACTERS} characters")


def _claim(location: Location, manifest: Manifest) -> None:
    """Mark the location as the place that this store is pushed to, so that files there are known to be the store's."""
    if is_claimed(location, manifest):
        return
    if not location.is_empty(but_for=_UNFINISHED_CLAIMS):
        # Another push of the same store may have begun since, or even ended.
        if is_claimed(location, manifest) or is_published(location, manifest):
            return
        raise foreign_files(location)
    _unless_done(
        lambda: location.write(PENDING, manifest.digest.encode()),
        lambda: is_claimed(location, manifest) or is_published(location, manifest),
    )


def _has(location: Location, name: str, record: FileRecord) -> bool:
    """Tell whether a file is at the location: in a folder of this machine by its bytes, elsewhere by its size."""
    if location.folder is not None:
        return is_whole(location.folder / name, record)
    return location.size(name) == record.size


def _send(store: Path, location: Location, name: str, record: FileRecord) -> None:
    if not is_whole(store / name, record):
        raise damaged(store, name, record)
    _unless_done(lambda: location.send(store / name, name), lambda: _has(location, name, record))
    if not _has(location, name, record):
        raise GradshardError(f"{location.url}/{name} did not arrive whole: run the same again")


def _unless_done(step: Callable[[], None], done: Callable[[], bool]) -> None:
    """Run a step, whose failure is ignored if another push of the same store did it meanwhile."""
    try:
        step()
    except (GradshardError, OSError):
        if not done():
            raise


def _send_signature(store: Path, location: Location) -> None:
    """Send the signature of a store that has one, unless it is there."""
    signature = read_signature(Folder(store))
    if signature is not None and read_signature(location) != signature:
        location.write(SIGNATURE, signature)


def _fetch(location: Location, name: str, record: FileRecord, folder: Path) -> None:
    try:
        fetch(location, name, record, folder / name)
    except FileNotFoundError as error:
        raise GradshardError(
            f"{location.url}/{name} is missing although the manifest names it: the store there is not whole; tell its "
            "owner"
        ) from error


def _each(step: Callable[[str], None], names: Iterable[str]) -> None:
    """Run a step for every file, a few at a time; the first error cancels the steps that have not begun."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        futures = [pool.submit(step, name) for name in names]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def is_whole(path: Path, record: FileRecord) -> bool:
    """Tell whether a file is what the manifest promises."""
    return path.is_file() and path.stat().st_size == record.size and file_sha256(path) == record.sha256
