"""The list of the stores at a place: written by push, made again from what is there, and pulled from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.remote import index
from gradshard.storage.remote.index import INDEX, Entry, Index, listed, pick, rebuild, register
from tests.helpers import signers
from tests.helpers.projects import call
from tests.helpers.transfers import contents, one_sentence


@pytest.fixture(params=["path", "s3", "gs", "az", "ssh", "hf"])
def place(request, tmp_path):
    """Where stores can lie: a folder, a bucket, a folder of another machine, a dataset of the hub."""
    folder = tmp_path / "shared"
    if request.param in ("s3", "gs", "az"):
        return f"{request.getfixturevalue(request.param).url}/shared"
    if request.param == "hf":
        request.getfixturevalue("hf")
        return "hf://datasets/someone/stores"
    return str(folder) if request.param == "path" else request.getfixturevalue("sshd").url(folder)


@pytest.fixture
def says(monkeypatch, capsys, tmp_path):
    """Run `gradshard store ...`; gives the exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        code = call(monkeypatch, "store", *map(str, arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def two(source, other_store, place, says):
    """A place with two stores."""
    for store in (source, other_store.where):
        code, _, err = says("push", store, f"{place}/{Path(store).name}")
        assert (code, "list of the stores" in err) == (0, False)
    return place


def test_push_lists_each_store_and_rebuild_finds_the_same(two, source, other_store, says):
    code, out, _ = says("list", two, "--json")
    told = json.loads(out)["stores"]
    assert (code, [entry["name"] for entry in told]) == (0, ["M.zarr", "N.zarr"])
    manifest = read_manifest(source)
    assert told[0] == {
        **{"name": "M.zarr", "model": "M", "dataset": "digits", "split": "train", "rows": 700},
        **{"size": manifest.size, "digest": manifest.digest, "signer": None},
    }
    assert [entry.model_dump() for entry in rebuild(two)] == told
    assert [entry.model_dump() for entry in listed(two)] == told
    head, *rows = says("list", two)[1].splitlines()
    assert head.split() == ["name", "model", "dataset", "rows", "size", "digest", "signer"]
    assert [row.split()[0] for row in rows] == ["M.zarr", "N.zarr"]
    assert manifest.digest[:12] in rows[0]


def test_a_store_is_pulled_by_its_name_and_by_the_beginning_of_its_digest(two, source, other_store, says):
    digest = read_manifest(Path(other_store.where)).digest
    assert says("pull", two, "one.zarr", "--pick", "M.zarr")[0] == 0
    assert says("pull", two, "two.zarr", "--pick", digest[:12])[0] == 0
    assert says("pull", two, "again.zarr", "--pick", "M")[0] == 0
    assert contents(Path("again.zarr")) == contents(source)
    assert contents(Path("one.zarr")) == contents(source)
    assert contents(Path("two.zarr")) == contents(Path(other_store.where))
    err = one_sentence(*says("pull", two, "three.zarr", "--pick", "O.zarr")[::2])
    assert "no store of the name or digest O.zarr; there: M.zarr (" in err
    assert "not 0123456789ab" in one_sentence(
        *says("pull", two, "three.zarr", "--pick", "M.zarr", "--digest", "0123456789ab")[::2]
    )
    assert not Path("three.zarr").exists()
    for short in ("", "0"):
        err = one_sentence(*says("pull", two, "three.zarr", "--pick", "M.zarr", "--digest", short)[::2])
        assert f"the digest {short} is too short to name a store" in err
    assert not Path("three.zarr").exists()


def test_the_list_says_who_claims_to_have_signed(two, source, says, tmp_path):
    alice = signers.key_pair(tmp_path, "alice")
    assert says("sign", f"{two}/M.zarr", "--key", alice.private)[0] == 0
    first, second = listed(two)
    assert first.signer is not None
    assert (first.signer.startswith("key "), second.signer) == (True, None)
    assert says("pull", two, "pulled.zarr", "--pick", "M.zarr", "--signer", alice.public)[0] == 0
    assert says("pull", two, "other.zarr", "--pick", "N.zarr", "--signer", alice.public)[0] == 1


def test_a_list_that_names_another_digest_is_found_out(source, tmp_path, says, nginx):
    assert says("push", source, nginx.folder / "M.zarr")[0] == 0
    assert json.loads(says("list", nginx.url, "--json")[1])["stores"][0]["name"] == "M.zarr"
    file = nginx.folder / INDEX
    file.write_text(file.read_text().replace(read_manifest(source).digest, "a" * 64))
    err = one_sentence(*says("pull", nginx.url, "pulled.zarr", "--pick", "M.zarr")[::2])
    assert f"is the store {read_manifest(source).digest}, not {'a' * 64}" in err
    assert not Path("pulled.zarr").exists()


def test_a_place_of_several_stores_is_told_to_be_one(source, says, nginx):
    assert says("push", source, nginx.folder / "M.zarr")[0] == 0
    err = one_sentence(*says("pull", nginx.url, "pulled.zarr")[::2])
    assert "is no store but a list of stores: name one by --pick, as `gradshard store list` shows them" in err
    err = one_sentence(*says("info", nginx.folder)[::2])
    assert f"name one of the stores in it, such as {nginx.folder / 'M.zarr'}" in err


def test_over_http_a_list_is_read_and_never_made(nginx, says):
    assert "has no list of its stores" in one_sentence(*says("list", nginx.url)[::2])
    assert "over HTTP" in one_sentence(*says("list", nginx.url, "--rebuild")[::2])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        '{"format": "gradshard-stores", "version": 2, "stores": []}',
        '{"format": "gradshard-stores", "version": 1, "stores": [{"name": "../M.zarr"}]}',
        '{"format": "something else"}',
    ],
)
def test_a_file_that_is_no_list_is_told_and_neither_believed_nor_replaced(source, content, nginx, says):
    (nginx.folder / INDEX).write_text(content)
    assert "is no list of stores" in one_sentence(*says("list", nginx.url)[::2])
    code, _, err = says("push", source, nginx.folder / "M.zarr")
    assert (code, "is there, but not in the list" in err) == (0, True)
    assert (nginx.folder / INDEX).read_text() == content


def test_a_name_that_leads_elsewhere_is_none_of_a_list(source):
    known = listed(str(source.parent))[0].model_dump()
    for name in ("", ".", "..", "../M.zarr", "a/b", "a\nb", "\x1b[31m", "/etc"):
        with pytest.raises(ValueError, match="name"):
            Entry.model_validate(known | {"name": name})


def test_what_is_no_store_is_not_listed_and_a_damaged_one_is_told_and_hides_no_other(source, caplog):
    (source.parent / "notes").mkdir()
    (source.parent / "file").write_text("text")
    assert [entry.name for entry in listed(str(source.parent))] == ["M.zarr"]
    assert not caplog.messages
    (source.parent / "notes/manifest.json").write_text("{}")
    assert [entry.name for entry in listed(str(source.parent))] == ["M.zarr"]
    assert "the folder 'notes' is left out of the list: it holds a manifest.json that is none of a store" in caplog.text


@pytest.mark.parametrize("file", ["manifest.json", "store.sig"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "is no file that can be read (Is a directory): remove it"),
        (lambda path: path.symlink_to(path.name), "is no file that can be read (Too many levels"),
    ],
    ids=["folder", "loop"],
)
def test_a_folder_with_an_odd_file_is_left_out_and_told_and_hides_no_other_store(
    source, says, caplog, file, make, reason
):
    shutil.copytree(source, source.parent / "odd.zarr")
    (source.parent / "odd.zarr" / file).unlink(missing_ok=True)
    make(source.parent / "odd.zarr" / file)
    for command in (("list", source.parent), ("pull", source.parent, "one.zarr", "--pick", "M.zarr")):
        caplog.clear()
        assert says(*command)[0] == 0
        (told,) = caplog.messages
        assert f"the folder 'odd.zarr' is left out of the list: its {file} {reason}" in told


def test_a_folder_that_may_not_be_read_is_left_out_and_told(source, caplog, monkeypatch):
    shutil.copytree(source, source.parent / "odd.zarr")

    def signature(files):
        if files.url.endswith("odd.zarr"):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(index, "optional_signature", signature)
    assert [entry.name for entry in listed(str(source.parent))] == ["M.zarr"]
    assert "the folder 'odd.zarr' is left out of the list: it cannot be read: change its permissions" in caplog.text


def test_a_link_to_a_store_is_listed_as_one(source, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/linked.zarr").symlink_to(source)
    assert [entry.name for entry in rebuild(str(tmp_path / "shared"))] == ["linked.zarr"]


def test_a_folder_of_an_odd_name_is_left_out_and_told_and_hides_no_other_store(source, says, caplog):
    for odd in ("M (copy).zarr", "M\x1b[31m.zarr"):
        shutil.copytree(source, source.parent / odd)
    for command in (("list", source.parent), ("list", source.parent, "--rebuild"), ("pull", source.parent, "one.zarr")):
        caplog.clear()
        assert says(*command, *(("--pick", "M.zarr") if command[0] == "pull" else ()))[0] == 0
        odd, odder = sorted(caplog.messages)
        assert "the folder 'M (copy).zarr' is left out of the list: a list of stores holds only plain names" in odd
        assert "the folder 'M\\x1b[31m.zarr' is left out of the list" in odder
    assert [entry["name"] for entry in json.loads((source.parent / INDEX).read_text())["stores"]] == ["M.zarr"]
    assert contents(Path("one.zarr")) == contents(source)


_REGISTER = """
import sys
from pathlib import Path
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.remote.index import register
place, source, first, last = sys.argv[1:]
for number in range(int(first), int(last)):
    register(f"{place}/{number}.zarr", read_manifest(Path(source)))
"""


@pytest.mark.parametrize("place", ["path", "s3", "hf"], indirect=True)
def test_pushes_at_the_same_time_lose_no_store_on_a_disk_s3_and_the_hub(place, source, request):
    if place.startswith("hf:"):
        request.getfixturevalue("hf").create("someone/stores")

    def command(first):
        return [sys.executable, "-c", _REGISTER, place, str(source), str(first), str(first + 8)]

    running = [subprocess.Popen(command(first)) for first in (0, 8)]
    assert [process.wait(120) for process in running] == [0, 0]
    index_there = index._read(index.open_location(place))
    assert {entry.name for entry in index_there.stores} == {f"{number}.zarr" for number in range(16)}


def test_an_entry_that_another_push_overwrote_is_written_again(source, sshd, tmp_path, monkeypatch):
    place, manifest = sshd.url(tmp_path / "shared"), read_manifest(source)
    register(f"{place}/M.zarr", manifest)
    monkeypatch.setattr(index, "_PAUSE_SECONDS", 0)
    write, lost = index.Location.write, []

    def overwritten(location, name, content):
        write(location, name, content)
        if not lost:
            lost.append(content)
            write(location, name, Index().content())

    monkeypatch.setattr(index.Location, "write", overwritten)
    register(f"{place}/N.zarr", manifest)
    assert lost
    assert "N.zarr" in {entry.name for entry in listed(place)}


def test_the_root_of_a_bucket_has_no_list_beside_it(source, s3, says):
    code, _, err = says("push", source, s3.url)
    assert (code, "no stores.json can lie beside it" in err) == (0, True)


def test_a_dataset_that_is_one_store_has_no_list_beside_it(source, hf, says):
    code, _, err = says("push", source, "hf://datasets/someone/store")
    assert (code, "no stores.json can lie beside it" in err) == (0, True)


def test_a_signature_goes_to_the_hub_with_the_manifest_or_later_by_itself(source, hf, tmp_path, says):
    place, alice = "hf://datasets/someone/stores/M.zarr", signers.key_pair(tmp_path, "alice")
    assert says("push", source, place)[0] == 0
    assert says("pull", place, tmp_path / "back.zarr", "--signer", alice.public)[0] == 1
    assert says("sign", source, "--key", alice.private)[0] == 0
    before = hf.commits
    for _ in range(2):
        assert says("push", source, place)[0] == 0
    assert hf.commits == before + 2  # the signature, and who signed in the list
    assert says("pull", place, tmp_path / "back.zarr", "--signer", alice.public)[0] == 0
    assert contents(tmp_path / "back.zarr") == contents(source)
    assert says("push", source, "hf://datasets/someone/stores/N.zarr")[0] == 0
    assert hf.contents("someone/stores", "N.zarr") == contents(source)


def test_a_name_goes_before_a_digest_and_a_digest_needs_six_characters(source, tmp_path, says):
    for name in ("one.zarr", "two.zarr"):
        assert says("push", source, tmp_path / "shared" / name)[0] == 0
    assert pick(str(tmp_path / "shared"), "two.zarr").name == "two.zarr"
    assert pick(str(tmp_path / "shared"), read_manifest(source).digest[:8]).name == "one.zarr"  # the same content
    with pytest.raises(GradshardError, match="no store of the name or digest"):
        pick(str(tmp_path / "shared"), read_manifest(source).digest[:3])
