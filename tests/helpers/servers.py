"""Server programs, started on this machine: nginx, Python's own HTTP server and sshd."""

import contextlib
import getpass
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_DEADLINE = 120


@dataclass
class WebServer:
    """A server of one folder; ``requests`` returns the requests that it got, as (method, path, status)."""

    url: str
    folder: Path
    requests: Callable[[], list[tuple[str, str, int]]]

    def fetched(self, under: str = "/") -> list[str]:
        """Return the paths below ``under`` that were fetched successfully, relative to it."""
        paths = [path for method, path, status in self.requests() if method == "GET" and status in (200, 206)]
        return [path.removeprefix(under).lstrip("/") for path in paths if path.startswith(under)]


def required(program: str, *, insist: str = "GRADSHARD_REQUIRE_SERVERS") -> str:
    """Return the path of a server's program; without it, skip the test, or fail if the variable ``insist`` is set."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get(insist):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    """Return a port that nobody listens at, outside of those that the system gives to whoever asks for any."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000)))
            return probe.getsockname()[1]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that becomes true soon, and fail if it does not."""
    stop = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < stop, f"{what} did not happen in {_DEADLINE} s"
        time.sleep(0.02)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server; the context begins once it answers at its port, and ends the process."""
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
    """Run nginx, which supports range requests."""
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
    """Run Python's ``http.server``, which supports no range requests."""
    port, folder, log = free_port(), work / "www", work / "output.log"
    folder.mkdir(parents=True)
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]

    def requests() -> list[tuple[str, str, int]]:
        parts = [line.split('"') for line in log.read_text().splitlines() if "HTTP/" in line and " code " not in line]
        return [(*part[1].split()[:2], int(part[2].split()[0])) for part in parts]

    with running(command, port, log):
        yield WebServer(f"http://127.0.0.1:{port}", folder, requests)


@dataclass
class Sshd:
    """An SSH server that lets this user in by a key, and the home folder, where the client's SSH files are."""

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
    if os.geteuid() == 0:  # as root, sshd needs this folder, which only a start of the system makes
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
