"""Plain progress lines: a few seconds apart, with rate and time left."""

import pytest

from gradshard.stages.support import progress


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
    progress.say("path/[bold]x[/bold] 3/4 :smile:")
    assert capsys.readouterr().err == "path/[bold]x[/bold] 3/4 :smile:\n"
