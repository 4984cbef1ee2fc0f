"""Plain progress lines: a few seconds apart, with rate and time left."""

import os
import re
import subprocess
import sys

import pytest

from gradshard.stages.console import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_seconds_apart_with_rate_and_time_left(clock, capsys):
    with progress.progress("work", 100, "things", done=20) as advance:
        for _ in range(40):
            clock[0] += 1
            advance(2)
    assert capsys.readouterr().err.splitlines() == [
        "work: 40/100 things, 2.0/s, 0:00:30 left",
        "work: 60/100 things, 2.0/s, 0:00:20 left",
        "work: 80/100 things, 2.0/s, 0:00:10 left",
        "work: 100/100 things, 2.0/s",
    ]


def test_nothing_to_do_shows_nothing(clock, capsys):
    with progress.progress("work", 100, "things", done=100):
        pass
    assert capsys.readouterr().err == ""


def test_a_message_is_printed_as_it_is(capsys):
    progress.echo("path/[bold]x[/bold] 3/4 :smile:")
    assert capsys.readouterr().err == "path/[bold]x[/bold] 3/4 :smile:\n"


def test_a_terminal_gets_a_bar_with_units_and_rate():
    code = """
import time
from gradshard.stages.console.progress import progress
with progress("work", 30, "things", done=10) as advance:
    for _ in range(2):
        time.sleep(0.1)
        advance(10)
"""
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, env=environment)
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 1 << 16).decode())
    os.close(ours)
    assert "30/30 things" in shown
    assert 0.5 < float(shown.rpartition("things ")[2].partition("/s")[0]) < 200
