"""A Hugging Face hub on this machine: the documented endpoints for pushing and pulling a dataset's files.

It follows the documentation (https://huggingface.co/docs/hub/api) and the client's requests: files are regular or large
ones, large ones are sent before the commit that names them and are served by another host, a commit is all or nothing,
and more than 128 commits in an hour are refused.
"""

import base64
import functools
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.broken_servers import Fault

TOKEN = "hf_testing"
COMMITS_AN_HOUR = 128
_PAGE = 20


@dataclass
class Repository:
    """A dataset: whether it is private, and the files of each of its commits."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        return sha


@dataclass
class Hub:
    """The hub's datasets and blobs, the requests it got, and its faults.

    ``use`` sends the client to another port. ``refusals`` lists, by kind, the statuses that the next requests get; a
    commit whose number (from 1) is in ``lost`` is made but its answer never arrives; ``faults`` changes the bytes that
    are sent of a file.
    """

    url: str
    port: int
    use: Callable[[int], None]
    datasets: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refusals: dict[str, list[int]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    faults: dict[str, Fault] = field(default_factory=dict)
    commits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, name: str, *, private: bool = True) -> Repository:
        repository = Repository(private)
        repository.commit({".gitattributes": b"*.bin filter=lfs\n"})
        self.datasets[name] = repository
        return repository

    def contents(self, name: str, folder: str = "") -> dict[str, bytes]:
        """Return the files of a folder of a dataset, by their names in it, without the hub's own."""
        prefix = f"{folder}/" if folder else ""
        files = self.datasets[name].files if name in self.datasets else {}
        own = {path: content for path, content in files.items() if path != ".gitattributes"}
        return {path.removeprefix(prefix): content for path, content in own.items() if path.startswith(prefix)}

    def count(self) -> Counter[str]:
        """Count the requests of each kind."""
        return Counter(kind for kind, _ in self.requests)


def is_large(content: bytes) -> bool:
    """Tell whether the hub treats a file as large, as it does binary files."""
    return b"\0" in content[:512]


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": _git_digest(content)}
    if is_large(content):
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        entry |= {"oid": _git_digest(pointer), "lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}}
    return entry


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def respond(self) -> None:
        target = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(target.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for kind, method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, target.path)
            if found and self.command in method:
                self.hub.requests.append((kind, target.path))
                try:
                    if self.hub.refusals.get(kind):
                        raise _RefusedError(self.hub.refusals[kind].pop(0))
                    answer(self, *map(urllib.parse.unquote, found.groups("")))
                except _RefusedError as refusal:
                    self.send({}, refusal.status, {"X-Error-Code": refusal.code})
                return
        self.hub.requests.append(("unknown", f"{self.command} {target.path}"))
        self.send({}, 404)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.respond
        raise AttributeError(name)

    def send(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def repository(self, name: str, *, write: bool = False) -> Repository:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        found = self.hub.datasets.get(name)
        if found is None or (found.private and not known):
            raise _RefusedError(404 if known else 401, "RepoNotFound")
        if write and not known:
            raise _RefusedError(401)
        return found

    def files(self, name: str, revision: str) -> dict[str, bytes]:
        repository = self.repository(name)
        if revision != "main" and revision not in repository.commits:
            raise _RefusedError(404, "RevisionNotFound")
        return repository.files if revision == "main" else repository.commits[revision]

    def create(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _RefusedError(401)
        asked = json.loads(self.body)
        assert asked["type"] == "dataset"
        name = f"{asked['organization']}/{asked['name']}"
        self.hub.create(name, private=asked.get("visibility") == "private")
        self.send({"url": f"{self.hub.url}/datasets/{name}"})

    def info(self, name: str, revision: str = "main") -> None:
        self.files(name, revision)
        self.send({"id": name, "sha": self.repository(name).head if revision == "main" else revision})

    def preupload(self, name: str) -> None:
        files = self.repository(name, write=True).files
        modes = []
        for asked in json.loads(self.body)["files"]:
            path, large = asked["path"], is_large(base64.b64decode(asked["sample"]))
            mode = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in files:
                there = _entry(path, files[path])
                mode["oid"] = there["lfs"]["oid"] if "lfs" in there else there["oid"]
            modes.append(mode)
        self.send({"files": modes})

    def batch(self, name: str) -> None:
        self.repository(name, write=True)
        objects = json.loads(self.body)["objects"]
        for blob in objects:
            if blob["oid"] not in self.hub.blobs:
                blob["actions"] = {"upload": {"href": f"http://{self.headers['Host']}/blobs/{blob['oid']}"}}
        self.send({"objects": objects, "transfer": "basic"})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(400)
        self.hub.blobs[oid] = self.body
        self.hub.received.append(oid)
        self.send(b"")

    def commit(self, name: str) -> None:
        with self.hub.lock:
            repository = self.repository(name, write=True)
            if self.hub.commits >= COMMITS_AN_HOUR:
                raise _RefusedError(429)
            files = dict(repository.files)
            for line in map(json.loads, self.body.splitlines()):
                change = line["value"]
                if line["key"] == "header" and change.get("parentCommit", repository.head) != repository.head:
                    raise _RefusedError(412)
                if line["key"] == "file":
                    files[change["path"]] = base64.b64decode(change["content"])
                elif line["key"] == "lfsFile":
                    if change["oid"] not in self.hub.blobs:
                        raise _RefusedError(400)
                    files[change["path"]] = self.hub.blobs[change["oid"]]
                elif line["key"] == "deletedFile" and files.pop(change["path"], None) is None:
                    raise _RefusedError(404, "EntryNotFound")
            sha = repository.commit(files)
            self.hub.commits += 1
            if self.hub.commits in self.hub.lost:
                self.connection.close()
                raise ConnectionAbortedError
        self.send({"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{sha}", "commitOid": sha})

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        files = self.files(name, revision)
        inside = sorted(path for path in files if path.startswith(f"{folder}/" if folder else ""))
        if folder and not inside:
            raise _RefusedError(404, "EntryNotFound")
        depth = folder.count("/") + 2 if folder else 1
        if self.query.get("recursive", "").lower() != "true":
            inside = sorted({"/".join(path.split("/")[:depth]) for path in inside})
        start = int(self.query.get("cursor", 0))
        page = inside[start : start + _PAGE]
        following = urllib.parse.urlencode({**self.query, "cursor": start + _PAGE})
        link = f'<http://{self.headers["Host"]}{urllib.parse.urlsplit(self.path).path}?{following}>; rel="next"'
        more = {"Link": link} if start + _PAGE < len(inside) else {}
        folders = {path: {"type": "directory", "path": path, "oid": _git_digest(path.encode())} for path in page}
        self.send([_entry(path, files[path]) if path in files else folders[path] for path in page], headers=more)

    def resolve(self, name: str, revision: str, path: str) -> None:
        files = self.files(name, revision)
        if path not in files:
            raise _RefusedError(404, "EntryNotFound")
        if is_large(files[path]):
            # Another host than the hub's own, as far as a client can tell.
            self.send(b"", 302, {"Location": f"http://localhost:{self.hub.port}/cdn/{name}/{revision}/{path}"})
            return
        self.hand_out(path, files[path])

    def deliver(self, name: str, revision: str, path: str) -> None:
        if "Authorization" in self.headers:  # the hub's storage refuses it, and no other host may get it
            raise _RefusedError(400)
        repository = self.hub.datasets[name]
        self.hand_out(path, (repository.files if revision == "main" else repository.commits[revision])[path])

    def hand_out(self, path: str, content: bytes) -> None:
        fault = self.hub.faults.get(path)
        length, pieces = fault(content) if fault else (len(content), iter([content]))
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        for piece in pieces if self.command != "HEAD" else ():
            self.wfile.write(piece)

    def approve(self) -> None:
        self.send({"warnings": [{"message": "empty or missing yaml metadata in repo card"}], "errors": []})

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError, ValueError):  # the client closed the connection, or got no answer
            super().handle()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, str, Callable[..., None]]] = [
    ("create", "POST", "/api/repos/create", _Handler.create),
    ("card", "POST", "/api/validate-yaml", _Handler.approve),
    ("info", "GET", f"/api/datasets/{_NAME}", _Handler.info),
    ("info", "GET", rf"/api/datasets/{_NAME}/revision/(\w+)", _Handler.info),
    ("preupload", "POST", f"/api/datasets/{_NAME}/preupload/main", _Handler.preupload),
    ("batch", "POST", rf"/datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("upload", "PUT", r"/blobs/(\w+)", _Handler.store),
    ("commit", "POST", f"/api/datasets/{_NAME}/commit/main", _Handler.commit),
    ("tree", "GET", rf"/api/datasets/{_NAME}/tree/(\w+)(?:/(.+))?", _Handler.tree),
    ("resolve", "GET HEAD", rf"/datasets/{_NAME}/resolve/(\w+)/(.+)", _Handler.resolve),
    ("cdn", "GET HEAD", rf"/cdn/{_NAME}/(\w+)/(.+)", _Handler.deliver),
]


@contextmanager
def hub(home: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run an empty hub; the client finds it by environment variables, in this process and in others."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler))
    server.daemon_threads = True

    def use(port: int) -> None:
        _name_hub(f"http://127.0.0.1:{port}", home, patch)

    state = Hub(f"http://127.0.0.1:{server.server_port}", server.server_port, use)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": state})
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    use(state.port)
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _name_hub(url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Give the client, in this process and in those that it starts, the hub's URL and a valid token."""
    from huggingface_hub import constants

    # By default the client sends large files to Xet storage, which would need a second server with its own protocol.
    for name, value in {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}.items():
        patch.setenv(name, value)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
