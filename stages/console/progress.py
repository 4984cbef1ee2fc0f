"""Messages to the user while a stage works, and progress with rate and time left."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

_console = Console(stderr=True, highlight=False, soft_wrap=True)
_PLAIN_SECONDS = 10.0

Advance = Callable[[int], None]


def echo(message: str) -> None:
    """Print a message to the user, on standard error."""
    _console.print(message, markup=False, emoji=False)


def echo_waiting(what: object) -> Callable[[str], None]:
    """Return a function that names the process already making ``what``, so that the user can stop it."""
    return lambda process: echo(f"process {process} is already making {what}: waiting for it (stop it to take over)")


@contextmanager
def progress(label: str, total: int, unit: str, *, done: int = 0) -> Iterator[Advance]:
    """Show progress: a bar on a terminal, else a plain line every few seconds and at the end.

    Args:
        label: what is being done.
        total: how many units there are.
        unit: their name, in the plural.
        done: how many were done by an earlier run.

    Yields:
        A function to call with the number of units just done.
    """
    shown = _bar(label, total, unit, done) if sys.stderr.isatty() else _lines(label, total, unit, done)
    with shown as advance:
        yield advance


@contextmanager
def transfer(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a download; yield a function to call with the bytes so far and, if known, the total."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=_console) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        echo(f"{label}: downloading")
        last: tuple[int, int | None] = (0, None)

        def remember(done: int, total: int | None) -> None:
            nonlocal last
            last = (done, total)

        yield remember
        echo(f"{label}: {last[0]} bytes")


class _Rate(ProgressColumn):
    """Column with the units per second over the last half minute."""

    def render(self, task: Task) -> Text:
        """Show nothing before the first units."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


@contextmanager
def _bar(label: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), _Rate())
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=_console) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(label: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    meter = _Meter(total, done)
    last_shown = time.monotonic()

    def show() -> None:
        echo(f"{label}: {meter.done}/{total} {unit}, {meter.rate:.1f}/s, {meter.time_left} left")

    def advance(count: int) -> None:
        nonlocal last_shown
        meter.add(count)
        if time.monotonic() - last_shown >= _PLAIN_SECONDS and meter.done < total:
            last_shown = time.monotonic()
            show()

    yield advance
    if meter.done > done:
        echo(f"{label}: {meter.done}/{total} {unit}, {meter.rate:.1f}/s")


class _Meter:
    """Counter of units, with their rate since the start."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self._first, self._start = done, time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count units; safe to call from several threads."""
        with self._lock:
            self.done += count

    @property
    def rate(self) -> float:
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    @property
    def time_left(self) -> str:
        seconds = round((self.total - self.done) / self.rate) if self.rate else 0
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
