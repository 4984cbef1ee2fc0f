"""Push to and pull from the Hugging Face hub, by the real client, at a server that counts commits as the hub does."""

import math
from pathlib import Path

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.remote import hub_push
from gradshard.storage.remote.claims import PENDING
from gradshard.storage.remote.hub import HubFolder, hub_folder
from gradshard.storage.remote.location import open_location
from gradshard.storage.remote.transfer import push
from tests.helpers import broken_servers, servers
from tests.helpers.hub_server import COMMITS_AN_HOUR, is_large
from tests.helpers.projects import Project
from tests.helpers.transfers import StoppedError, contents, one_sentence, pulled, pushed, stop_after

NAME = "someone/stores"
URL = f"hf://datasets/{NAME}/M.zarr"


@pytest.fixture
def in_small_commits(monkeypatch):
    """Push the small store in several commits, as a large one is."""
    monkeypatch.setattr(hub_push, "_FILES_A_COMMIT", 10)
    monkeypatch.setattr(hub_push, "_FILES_AT_ONCE", 4)


def large_files(source):
    return [content for content in contents(source).values() if is_large(content)]


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("hf://datasets/a/b", HubFolder("a/b", "main", "")),
        ("hf://datasets/a/b/stores/M.zarr/", HubFolder("a/b", "main", "stores/M.zarr")),
        ("hf://datasets/a/b@v1/M.zarr", HubFolder("a/b", "v1", "M.zarr")),
        ("hf://datasets/a/b@refs/pr/3/M.zarr", HubFolder("a/b", "refs/pr/3", "M.zarr")),
    ],
)
def test_an_address_names_a_dataset_a_revision_and_a_folder(url, folder):
    assert hub_folder(url) == folder


@pytest.mark.parametrize("url", ["hf://someone/model/M.zarr", "hf://datasets/someone", "hf://spaces/a/b"])
def test_an_address_of_anything_else_is_refused_in_one_sentence(hf, url, source, says):
    for command in (("push", source, url), ("info", url)):
        code, _, err = says("store", *command)
        assert url in one_sentence(code, err)
    assert hf.requests == []


def test_a_store_is_pushed_by_two_commits_and_pulled_by_one_request_a_file(hf, source, tmp_path):
    pushed(source, URL)
    assert hf.commits == 2
    assert len(hf.received) == len(large_files(source)) > 40
    hf.requests.clear()
    pulled(URL, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
    # One request more asks for a signature.
    assert hf.count() == {"resolve": len(contents(source)) + 1, "cdn": len(large_files(source))}


def test_a_dataset_may_be_one_store_and_then_shows_its_card(hf, source, tmp_path):
    url = f"hf://datasets/{NAME}"
    pushed(source, url)
    assert hf.contents(NAME) == contents(source)
    pulled(url, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_a_dataset_that_is_not_there_is_made_private(hf, source):
    pushed(source, URL)
    assert hf.datasets[NAME].private


def test_a_dataset_that_is_there_stays_as_it_is(hf, source):
    hf.create(NAME, private=False).commit({".gitattributes": b"", "notes.txt": b"mine"})
    pushed(source, URL)
    assert not hf.datasets[NAME].private
    assert hf.contents(NAME)["notes.txt"] == b"mine"
    assert hf.count()["create"] == 0


def test_an_earlier_commit_can_be_pulled(hf, source, tmp_path):
    pushed(source, URL)
    sha = hf.datasets[NAME].head
    hf.datasets[NAME].commit({})
    with pytest.raises(GradshardError, match="no published sign store"):
        pulled(URL, tmp_path / "back.zarr")
    pulled(f"hf://datasets/{NAME}@{sha}/M.zarr", tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


@pytest.mark.usefixtures("in_small_commits")
def test_many_files_need_few_commits_and_none_shows_half_a_store(hf, source):
    pushed(source, URL)
    files = len(read_manifest(source).files)
    assert hf.commits == math.ceil(files / 10) + 1
    *before, last = list(hf.datasets[NAME].commits.values())[1:]
    assert ["M.zarr/manifest.json" in files for files in before] == [False] * len(before)
    assert all(f"M.zarr/{PENDING}" in files for files in before)
    assert "M.zarr/manifest.json" in last
    assert f"M.zarr/{PENDING}" not in last


@pytest.mark.usefixtures("in_small_commits")
@pytest.mark.parametrize("calls", [3, 6])
def test_a_push_that_stops_in_the_middle_leaves_no_store_and_sends_nothing_twice(hf, source, tmp_path, calls):
    """Before its first commit, and after some."""
    with pytest.raises(StoppedError):
        push(source, URL, advance=stop_after(calls))
    assert (hf.commits > 0) == (calls > 4)
    assert "manifest.json" not in hf.contents(NAME, "M.zarr")
    assert len(hf.received) > 5
    with pytest.raises(GradshardError, match="no published sign store"):
        pulled(URL, tmp_path / "back.zarr")
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)
    assert len(hf.received) == len(set(hf.received)) == len(large_files(source))


def test_another_push_of_the_same_store_may_end_between_the_first_look_and_the_second(hf, source, monkeypatch):
    look = hub_push.is_published

    def meanwhile(location, manifest):
        found = look(location, manifest)
        monkeypatch.setattr(hub_push, "is_published", look)
        pushed(source, URL)
        return found

    monkeypatch.setattr(hub_push, "is_published", meanwhile)
    assert sum(pushed(source, URL)) == read_manifest(source).size
    assert hf.contents(NAME, "M.zarr") == contents(source)


@pytest.mark.slow
def test_a_killed_push_leaves_no_store_and_sends_nothing_twice(hf, source, tmp_path):
    """The process is killed while the way to the hub, through a proxy, has come to a halt."""
    with broken_servers.proxy(hf.port) as slow:
        hf.use(slow.port)
        slow.limit = read_manifest(source).size // 2
        process = Project(tmp_path).popen("store", "push", str(source), URL)
        assert slow.full.wait(300)
        process.kill()
        process.communicate(timeout=30)
    hf.use(hf.port)
    assert len(hf.received) > 3
    assert "manifest.json" not in hf.contents(NAME, "M.zarr")
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)
    assert len(hf.received) == len(set(hf.received)) == len(large_files(source))


@pytest.mark.usefixtures("in_small_commits")
def test_the_unfinished_push_of_another_store_is_left_alone(hf, source, other_store):
    with pytest.raises(StoppedError):
        push(Path(other_store.where), URL, advance=stop_after(6))
    before = hf.contents(NAME, "M.zarr")
    with pytest.raises(GradshardError, match="unfinished push of another store"):
        pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == before


@pytest.mark.usefixtures("in_small_commits")
def test_a_file_that_somebody_changed_meanwhile_is_not_published(hf, source):
    manifest, seen = read_manifest(source), []
    early = next(iter(manifest.files))  # of the first commit

    def meddle(done):
        seen.append(done)
        if sum(seen) == manifest.size:
            files = hf.datasets[NAME].files
            hf.datasets[NAME].commit({**files, f"M.zarr/{early}": b"\0another"})

    with pytest.raises(GradshardError, match=rf"{early} did not arrive whole: run the same again"):
        push(source, URL, advance=meddle)
    assert "manifest.json" not in hf.contents(NAME, "M.zarr")
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)


def test_a_commit_that_somebody_else_was_faster_with_is_told(hf, source, says):
    hf.refusals = {"commit": [412]}
    code, _, err = says("store", "push", source, URL)
    assert "somebody else changed the place just now (412 Precondition Failed)" in one_sentence(code, err)
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)


@pytest.mark.parametrize("number", [1, 2])
def test_a_commit_whose_answer_is_lost_spoils_nothing(hf, source, number):
    hf.lost = {number}
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)


@pytest.mark.parametrize("kind", ["preupload", "batch", "upload", "commit", "tree", "info"])
def test_a_hub_that_is_overloaded_now_and_then_delays_and_spoils_nothing(hf, source, kind):
    hf.refusals = {kind: [503]}
    pushed(source, URL)
    assert hf.contents(NAME, "M.zarr") == contents(source)
    assert hf.refusals == {kind: []}


def test_the_limit_of_commits_is_told_and_the_push_goes_on_later(hf, source, says):
    hf.commits = COMMITS_AN_HOUR - 1
    code, _, err = says("store", "push", source, URL)
    assert "429 Too Many Requests" in one_sentence(code, err)
    assert "run the same again later" in err
    hf.commits = 0
    sent = len(hf.received)
    assert says("store", "push", source, URL)[0] == 0
    assert hf.contents(NAME, "M.zarr") == contents(source)
    assert (len(hf.received), hf.commits) == (sent, 2)  # the manifest, and the list of the stores


@pytest.mark.parametrize("token", ["", "hf_of_nobody"])
def test_who_may_not_push_is_told_so(hf, source, says, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    code, _, err = says("store", "push", source, URL)
    assert "the server refuses (401 Unauthorized): check the address and your credentials" in one_sentence(code, err)
    assert hf.datasets == {}


def test_a_private_store_needs_a_token_and_a_public_one_none(hf, source, says, monkeypatch, tmp_path):
    pushed(source, URL)
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = says("store", "info", URL)
    assert "401 Unauthorized" in one_sentence(code, err)
    hf.datasets[NAME].private = False
    pulled(URL, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_a_hub_that_is_down_is_told_as_down_and_never_as_empty(hf, source, says):
    pushed(source, URL)
    hf.use(servers.free_port())
    with pytest.raises(GradshardError, match=r"manifest.json: nothing answers there: the server is down"):
        open_location(URL).size("manifest.json")
    code, _, err = says("store", "info", URL)
    assert "nothing answers there" in one_sentence(code, err)


@pytest.mark.parametrize("fault", [broken_servers.changed, broken_servers.endless, broken_servers.cut])
def test_a_hub_that_hands_out_something_else_is_refused(hf, source, tmp_path, fault):
    pushed(source, URL)
    hf.faults = {f"M.zarr/{signs_file(3)}": fault}
    with pytest.raises(GradshardError, match=signs_file(3)):
        pulled(URL, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()


def test_the_command_tells_what_it_pushed_and_nothing_of_the_library(hf, source, tmp_path):
    """Not its progress, not that it tries again, and not what it thinks of the card."""
    hf.refusals = {"upload": [503], "tree": [503]}
    said = Project(tmp_path).run("store", "push", str(source), f"hf://datasets/{NAME}")
    assert said.endswith(f"hf://datasets/{NAME}: store {read_manifest(source).digest}\n")
    assert hf.refusals == {"upload": [], "tree": []}
    assert all(line.startswith(("push ", "hf://")) for line in said.splitlines()), said
