"""Against a real HTTP server that serves ranges, and that breaks off when told to."""

import gzip
import hashlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest import sources
from gradshard.storage.ingest.download import download
from tests.helpers.idx_files import write_idx_folder

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Server:
    url: str = ""
    ranges: bool = True
    break_after: int | None = None
    pause: float = 0.0
    contents: dict[str, bytes] = field(default_factory=lambda: {"file": CONTENT})
    requests: list[str | None] = field(default_factory=list)


@pytest.fixture
def server():
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.requests.append(asked)
            content = state.contents.get(self.path.removeprefix("/"))
            if content is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start >= len(content) and start:
                self.send_error(416)
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(state.pause)
            self.wfile.write(body if state.break_after is None else body[: state.break_after])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/file"
    yield state
    httpd.shutdown()
    httpd.server_close()


def test_mnist_is_downloaded_once_from_the_mirrors(server, tmp_path, monkeypatch):
    """The whole way, with files and digests of our own in the place of MNIST's."""
    files = write_idx_folder(tmp_path / "server", zipped=True)
    contents = {path.name: path.read_bytes() for path in files.iterdir()}
    server.contents = contents
    digests = {name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(c)).hexdigest() for name, c in contents.items()}
    monkeypatch.setattr(sources, "MNIST_SHA256", digests)
    monkeypatch.setattr(sources, "MNIST_MIRRORS", ("http://127.0.0.1:9/", server.url.removesuffix("file")))
    monkeypatch.chdir(tmp_path)
    shown = []

    @contextmanager
    def show(name):
        yield lambda done, total: shown.append((name, done, total))

    first, requests = sources.mnist(None, show=show), len(server.requests)
    again = sources.mnist(None, show=show)
    assert requests == len(server.requests) == 4
    assert {name for name, *_ in shown} == set(contents)
    assert np.array_equal(first.splits["train"][0][:], again.splits["train"][0][:])
    assert first.splits["train"][0].shape == (40, 1, 12, 7)
    assert sorted(path.name for path in (tmp_path / "data/raw/mnist").glob("[!.]*")) == sorted(contents)


def check(path):
    if hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(CONTENT).digest():
        raise GradshardError("wrong content")


def fetch(urls, target):
    seen = []
    download(urls, target, check=check, on_bytes=lambda done, total: seen.append((done, total)))
    return seen


def test_a_file_arrives_whole_and_its_progress_is_told(server, tmp_path):
    seen = fetch([server.url], tmp_path / "sub" / "file")
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
    assert seen[-1] == (300_000, 300_000)
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == [".file.lock", "file"]


@pytest.mark.parametrize("ranges", [True, False], ids=["server with ranges", "server without"])
def test_a_broken_transfer_is_resumed(server, tmp_path, ranges):
    server.ranges, server.break_after = ranges, 100_000
    with pytest.raises(GradshardError, match="run the same command again to go on"):
        fetch([server.url], tmp_path / "file")
    assert not (tmp_path / "file").exists()
    server.break_after = None
    fetch([server.url], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]


def test_two_that_go_on_with_one_download_fetch_it_once(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    server.pause = 0.1
    with ThreadPoolExecutor(2) as pool:
        assert len([*pool.map(lambda _: fetch([server.url], tmp_path / "file"), range(2))]) == 2
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["bytes=100000-"]


def test_a_full_disk_is_told_and_not_taken_for_the_network(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(GradshardError, match=r"^no space left on the disk \(.*file\.part\): free some and run"):
        fetch([server.url, server.url], tmp_path / "file")
    assert server.requests == [None]


def test_the_next_mirror_serves_where_one_fails(server, tmp_path):
    fetch([server.url + "-gone", "http://127.0.0.1:9/refused", server.url], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_whole_part_that_was_never_checked_is_used(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch([server.url], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_content_is_thrown_away(server, tmp_path):
    server.contents = {"file": CONTENT[:-1] + b"x"}
    with pytest.raises(GradshardError, match="wrong content"):
        fetch([server.url], tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == [".file.lock"]
