"""Real servers on this machine: nginx, Python's own HTTP server, an S3 server, sshd, and two that break things."""

import functools
import getpass
import http.server
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_DEADLINE = 30


@dataclass
class WebServer:
    """A server of one folder; ``requests`` tells what it was asked for, as (method, path, status)."""

    url: str
    folder: Path
    requests: Callable[[], list[tuple[str, str, int]]]

    def fetched(self, under: str = "/") -> list[str]:
        """The paths that were fetched with success, without the folder's own path."""
        paths = [path for method, path, status in self.requests() if method == "GET" and status in (200, 206)]
        return [path.removeprefix(under).lstrip("/") for path in paths if path.startswith(under)]


def required(program: str, *, insist: str = "GRADSHARD_REQUIRE_SERVERS") -> str:
    """The path of a server's program; without it the test is skipped, or fails where the variable ``insist`` is set."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get(insist):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens soon."""
    stop = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < stop, f"{what} did not happen in {_DEADLINE} s"
        time.sleep(0.02)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until it is not needed any more, once it answers at its port."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        until(lambda: process.poll() is not None or _answers(port), f"the start of {command[0]}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(_DEADLINE)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(work: Path) -> Iterator[WebServer]:
    """Nginx, which knows ranges."""
    program, port, folder = required("nginx"), free_port(), work / "www"
    folder.mkdir(parents=True)
    temporary = " ".join(f"{kind}_temp_path {work}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
    (work / "nginx.conf").write_text(f"""
        daemon off; pid {work}/pid; worker_processes 1; {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 64; }}
        http {{
            log_format plain '$request_method $uri $status'; access_log {work}/access.log plain;
            {temporary} scgi_temp_path {work}/scgi;
            server {{ listen 127.0.0.1:{port}; root {folder}; }}
        }}""")
    command = [program, "-p", str(work), "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf"]
    url, marks = f"http://127.0.0.1:{port}", itertools.count()

    def requests() -> list[tuple[str, str, int]]:
        # A request is logged after its answer: once a later one is in the log, all are.
        mark = f"/mark-{next(marks)}"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url + mark)
        until(lambda: mark in (work / "access.log").read_text(), "an entry in nginx's log")
        lines = [line.split() for line in (work / "access.log").read_text().splitlines()]
        return [(method, path, int(status)) for method, path, status in lines if not path.startswith("/mark-")]

    with running(command, port, work / "output.log"):
        yield WebServer(url, folder, requests)


@contextmanager
def plain_http(work: Path) -> Iterator[WebServer]:
    """Python's ``http.server``, which knows no ranges."""
    port, folder, log = free_port(), work / "www", work / "output.log"
    folder.mkdir(parents=True)
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]

    def requests() -> list[tuple[str, str, int]]:
        parts = [line.split('"') for line in log.read_text().splitlines() if "HTTP/" in line and " code " not in line]
        return [(*part[1].split()[:2], int(part[2].split()[0])) for part in parts]

    with running(command, port, log):
        yield WebServer(f"http://127.0.0.1:{port}", folder, requests)


@dataclass
class S3:
    """An S3 server with one empty bucket; the environment names it to the drivers."""

    url: str
    port: int
    client: object
    patch: pytest.MonkeyPatch

    def use(self, port: int) -> None:
        """Send the driver to another port."""
        self.patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    def contents(self, place: str) -> dict[str, bytes]:
        """The objects under a URL, by their names below it."""
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
        read = functools.partial(self.client.get_object, Bucket=bucket)
        return {entry["Key"].removeprefix(f"{prefix}/"): read(Key=entry["Key"])["Body"].read() for entry in found}

    def put(self, place: str, content: bytes) -> None:
        bucket, _, key = place.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def remove(self, place: str) -> None:
        bucket, _, key = place.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)


@contextmanager
def s3(patch: pytest.MonkeyPatch) -> Iterator[S3]:
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        patch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client("s3", endpoint_url=endpoint)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        client.create_bucket(Bucket="stores")
        found = S3("s3://stores", port, client, patch)
        found.use(port)
        yield found
    finally:
        server.stop()


@dataclass
class Sshd:
    """An SSH server that lets this user in by a key, and this user's home, with what a client keeps there."""

    port: int
    home: Path
    user: str = field(default_factory=getpass.getuser)

    def url(self, path: Path, *, port: int | None = None) -> str:
        return f"ssh://{self.user}@127.0.0.1:{port or self.port}{path}"

    def know(self, port: int) -> None:
        """Let the client know the server's key at a port."""
        key = (self.home / "host_key.pub").read_text()
        with (self.home / ".ssh/known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{port} {key}")

    def forget(self) -> None:
        (self.home / ".ssh/known_hosts").write_text("")


@contextmanager
def sshd(work: Path, patch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    program, port = required("sshd"), free_port()
    if os.geteuid() == 0:  # without this folder, which a start of the system makes, it does not run as root
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (work / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (work / "host_key", work / ".ssh/id_ed25519"):
        subprocess.run([required("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    shutil.copy(work / ".ssh/id_ed25519.pub", work / "authorized_keys")
    (work / ".ssh/config").write_text("ServerAliveInterval 10\n")
    (work / "sshd_config").write_text(f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {work}/host_key
PidFile none
AuthorizedKeysFile {work}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
""")
    patch.setenv("HOME", str(work))
    patch.delenv("SSH_AUTH_SOCK", raising=False)
    with running([program, "-D", "-e", "-f", f"{work}/sshd_config"], port, work / "output.log"):
        server = Sshd(port, work)
        server.know(port)
        yield server


# What a broken server does to one answer: given the file's bytes, the length it promises and the bytes that it sends.
Fault = Callable[[bytes], tuple[int, Iterator[bytes]]]


def cut(content: bytes) -> tuple[int, Iterator[bytes]]:
    """The connection breaks in the middle."""
    return len(content), iter([content[: len(content) // 2]])


def changed(content: bytes) -> tuple[int, Iterator[bytes]]:
    """One byte is another one."""
    return len(content), iter([bytes([*content[:-1], content[-1] ^ 1])])


def endless(content: bytes) -> tuple[int, Iterator[bytes]]:
    """It never stops sending."""
    return 1 << 50, itertools.chain([content], itertools.repeat(bytes(1 << 16)))


@dataclass
class BrokenServer(WebServer):
    """A server of one folder that answers some of its files with a fault; one in ``once`` is whole the next time.

    It refuses the first ``refusals`` requests with the status ``refusal``; and all of them without ``token``, if there
    is one, as their query.
    """

    faults: dict[str, Fault] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    sent: int = 0
    refusal: int = 503
    refusals: float = 0
    token: str = ""


@contextmanager
def broken_http(folder: Path) -> Iterator[BrokenServer]:
    asked: list[tuple[str, str, int]] = []
    state = BrokenServer("", folder, lambda: list(asked))

    class Handler(http.server.BaseHTTPRequestHandler):
        def refused(self) -> bool:
            self.path, _, query = self.path.partition("?")
            if query != state.token:
                self.send_error(403)
                return True
            if state.refusals > 0:
                state.refusals -= 1
                self.send_error(state.refusal)
                return True
            return False

        def do_GET(self) -> None:
            if self.refused():
                return
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            name = self.path.lstrip("/")
            fault = state.faults.pop(name, None) if name in state.once else state.faults.get(name)
            content = path.read_bytes()
            length, pieces = fault(content) if fault else (len(content), iter([content]))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)
                state.sent += len(piece)

        def do_HEAD(self) -> None:
            if self.refused():
                return
            path = folder / self.path.lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
            self.end_headers()

        def log_request(self, code="-", size="-") -> None:
            asked.append((self.command, self.path, int(code)))

        def log_message(self, *args) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client had enough
                super().handle()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Proxy:
    """Passes connections on to a port; after ``limit`` bytes from the client it passes on nothing more, or cuts.

    With ``once`` it cuts the connection that comes to the limit, and no other.
    """

    port: int
    limit: int | None = None
    cuts: bool = False
    once: bool = False
    passed: int = 0
    full: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def allow(self, piece: bytes) -> tuple[bytes, bool]:
        """As much of a piece as may pass, and whether its connection has come to the limit."""
        with self.lock:
            if self.limit is not None:
                piece = piece[: max(0, self.limit - self.passed)]
            self.passed += len(piece)
            ends = self.limit is not None and self.passed >= self.limit
            if ends:
                self.full.set()
                self.limit = None if self.once else self.limit
        return piece, ends


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A real TCP proxy in front of a port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    state = Proxy(listener.getsockname()[1])
    connections: list[socket.socket] = []

    def up(client: socket.socket, server: socket.socket) -> None:
        while piece := _receive(client):
            allowed, ends = state.allow(piece)
            if allowed:
                server.sendall(allowed)
            if ends and state.cuts:
                break
            if ends:
                return
        _close(client, server)

    def down(client: socket.socket, server: socket.socket) -> None:
        while piece := _receive(server):
            try:
                client.sendall(piece)
            except OSError:
                break
        _close(client, server)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", target))
            connections.extend((client, server))
            for way in (up, down):
                threading.Thread(target=way, args=(client, server), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield state
    finally:
        listener.close()
        _close(*connections)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 14)
    except OSError:
        return b""


def _close(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
