"""A server that is down, unknown, overloaded or closed to us is told as what it is, and never as a damaged store."""

import errno
import math
import subprocess
import sys

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import signs_file
from gradshard.storage.remote.cache import open_remote
from gradshard.storage.remote.causes import ConnectionBrokenError, cause_of
from gradshard.storage.remote.location import manifest_at, open_location
from tests.helpers import broken_servers, servers
from tests.helpers.projects import ROOT, call
from tests.helpers.transfers import contents, one_sentence, pulled


@pytest.fixture
def says(monkeypatch, capsys):
    def run(*arguments):
        code = call(monkeypatch, *map(str, arguments))
        return one_sentence(code, capsys.readouterr().err)

    return run


COMMANDS = [("info",), ("verify",), ("pull", "back.zarr")]


@pytest.mark.parametrize(("command", "more"), [(name, more) for name, *more in COMMANDS], ids=lambda part: str(part))
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses (401 Unauthorized): check the address and your credentials"),
        (403, "refuses (403 Forbidden): check the address and your credentials"),
        (503, "is overloaded or out of order (503 Service Unavailable): run the same again later"),
        (400, "does not accept the request (400 Bad Request): check the address"),
    ],
)
def test_what_a_server_answers_is_told_with_the_advice_that_fits(
    broken_http, tmp_path, monkeypatch, says, command, more, status, said
):
    monkeypatch.chdir(tmp_path)
    broken_http.refusal, broken_http.refusals = status, math.inf
    sentence = says("store", command, broken_http.url, *more)
    assert f"{broken_http.url}/manifest.json: the server {said}" in sentence
    assert not (tmp_path / "back.zarr").exists()


def test_a_server_that_is_down_is_told_as_down(says):
    url = f"http://127.0.0.1:{servers.free_port()}/M.zarr"
    assert f"{url}/manifest.json: nothing answers there: the server is down" in says("store", "info", url)


def test_a_host_that_nobody_knows_is_told_as_unknown(says):
    assert "no host of that name is known: check the address" in says("store", "info", "http://nowhere.invalid/M.zarr")


def test_a_server_that_goes_down_while_a_store_is_verified_is_not_a_damaged_store(broken_http, says):
    whole = manifest_at(broken_http.url)
    location = open_location(broken_http.url)
    assert location.read("manifest.json", 1 << 20)
    broken_http.faults = dict.fromkeys(whole.files, broken_servers.cut)
    sentence = says("store", "verify", broken_http.url)
    assert "damaged" not in sentence
    assert "run the same again" in sentence


def test_a_server_that_is_overloaded_now_and_then_delays_and_spoils_nothing(broken_http, source, tmp_path):
    for number, step in enumerate(
        (
            lambda: manifest_at(broken_http.url),
            lambda: pulled(broken_http.url, tmp_path / "back.zarr"),
            lambda: open_remote(broken_http.url, tmp_path / "cache", limit=1 << 30).load(),
        )
    ):
        # The size is asked for first, which a refusal makes two requests; then the file.
        broken_http.refusals = 3 + number
        step()
        assert broken_http.refusals == 0
    assert contents(tmp_path / "back.zarr") == contents(source)


def test_a_server_that_stays_overloaded_is_asked_five_times_and_no_more(broken_http):
    broken_http.refusals = math.inf
    with pytest.raises(ConnectionBrokenError, match="503"):
        manifest_at(broken_http.url)
    assert [method for method, _, _ in broken_http.requests()] == ["HEAD", "GET"] * 5


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_a_server_does_not_have_is_missing_and_asked_for_once(broken_http, status):
    broken_http.refusal, broken_http.refusals = status, math.inf
    assert open_location(broken_http.url).size("manifest.json") is None
    with pytest.raises(GradshardError, match="no published sign store at"):
        manifest_at(broken_http.url)
    assert len(broken_http.requests()) == 4


def test_a_push_to_a_full_disk_is_told_as_a_full_disk(tmp_path):
    location = open_location(str(tmp_path / "shared"))

    def fill(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        location._put("README.md", fill)
    assert caught.value.errno == errno.ENOSPC


def test_a_token_in_an_address_stays_behind_each_file_and_is_shown_to_nobody(broken_http, source, tmp_path, says):
    broken_http.token = "signature=geheim&expires=9"
    url = f"{broken_http.url}?{broken_http.token}"
    assert manifest_at(url) == read_manifest(source)
    pulled(url, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(source)
    store = open_remote(url, tmp_path / "cache", limit=1 << 30)
    assert len(store.load()) == len(store)
    broken_http.faults = {signs_file(3): broken_servers.cut}
    assert "geheim" not in says("store", "pull", url, tmp_path / "other.zarr")
    broken_http.token = "another"
    sentence = says("store", "info", url)
    assert "an address that was signed may have run out" in sentence
    assert "geheim" not in sentence


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize(("name", "more"), [("info", ()), ("verify", ()), ("pull", ("back.zarr",))])
def test_commands_that_succeed_show_no_token_either(broken_http, tmp_path, monkeypatch, capsys, name, more, as_json):
    broken_http.token = "signature=geheim"
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "store", name, f"{broken_http.url}?signature=geheim", *more, *as_json) == 0
    assert "geheim" not in "".join(capsys.readouterr())


def test_googles_driver_shows_no_traceback_of_its_own():
    """It logs one, which Python prints where nobody set up logging."""
    code = "import logging, gradshard.storage.remote.location; logging.getLogger('gcsfs.retry').error('Traceback')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


class _AnswerError(Exception):
    def __init__(self, status):
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def test_the_status_that_other_drivers_carry_is_found_behind_their_exceptions():
    error = PermissionError("Forbidden")
    error.__cause__ = _AnswerError(403)
    assert "403" in cause_of(error).what
    assert not cause_of(error).passes
    assert cause_of(_AnswerError(503)).passes
