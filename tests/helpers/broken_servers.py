"""A server that breaks what it sends, and a proxy that breaks connections, on this machine."""

import http.server
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.servers import WebServer

# A fault of one answer: given the file's bytes, the length that is promised and the bytes that are sent.
Fault = Callable[[bytes], tuple[int, Iterator[bytes]]]


def cut(content: bytes) -> tuple[int, Iterator[bytes]]:
    """Break the connection in the middle."""
    return len(content), iter([content[: len(content) // 2]])


def changed(content: bytes) -> tuple[int, Iterator[bytes]]:
    """Change one byte."""
    return len(content), iter([bytes([*content[:-1], content[-1] ^ 1])])


def endless(content: bytes) -> tuple[int, Iterator[bytes]]:
    """Never stop sending."""
    return 1 << 50, itertools.chain([content], itertools.repeat(bytes(1 << 16)))


@dataclass
class BrokenServer(WebServer):
    """A server of one folder that sends some files with a fault; a file in ``once`` is sent whole the next time.

    It refuses the first ``refusals`` requests with the status ``refusal``, and every request whose query is not
    ``token``. Without ``sizes`` it does not tell how long a file is. A ``page`` is what it sends for a file
    that it lacks.
    """

    faults: dict[str, Fault] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    sent: int = 0
    refusal: int = 503
    refusals: float = 0
    token: str = ""
    sizes: bool = True
    page: bytes | None = None


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
            if not path.is_file() and state.page is None:
                self.send_error(404)
                return
            name = self.path.lstrip("/")
            fault = state.faults.pop(name, None) if name in state.once else state.faults.get(name)
            content = path.read_bytes() if path.is_file() else state.page
            length, pieces = fault(content) if fault else (len(content), iter([content]))
            self.send_response(200)
            if state.sizes:
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
            if state.sizes:
                self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
            self.end_headers()

        def log_request(self, code="-", size="-") -> None:
            asked.append((self.command, self.path, int(code)))

        def log_message(self, *args) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client closed the connection
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
    """State of a proxy at ``port``; after ``limit`` bytes from clients it passes on nothing more or, if ``cuts``, cuts.

    With ``once`` this happens to the connection that reaches the limit, and to no other.
    """

    port: int
    limit: int | None = None
    cuts: bool = False
    once: bool = False
    passed: int = 0
    full: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def allow(self, piece: bytes) -> tuple[bytes, bool]:
        """Return as much of a piece as may pass, and whether the limit is reached."""
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
    """Run a real TCP proxy in front of a port of this machine."""
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
