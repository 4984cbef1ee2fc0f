"""The command line itself: help, version, and packages of other people's with our names."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.stages.store.group import _COMMANDS as _STORE_COMMANDS

ROOT = Path(__file__).parents[2]
STAGES = ["prepare", "train-static", "precompute", "train-robust", "evaluate", "analyze", "blackbox", "report"]


def run(*arguments, **options):
    command = [sys.executable, "-m", "gradshard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def test_help_lists_the_stages_in_their_order():
    listed = re.findall(r"^  ([a-z-]+)  ", run("--help").stdout, flags=re.MULTILINE)
    assert [name for name in listed if name in STAGES] == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_itself(stage):
    done = run(stage, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 40
    assert "--params" in done.stdout


@pytest.mark.parametrize("command", list(_STORE_COMMANDS))
def test_every_command_for_stores_explains_itself(command):
    done = run("store", command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 40
    assert "--json" in done.stdout


def test_the_version_is_told():
    assert re.fullmatch(r"gradshard, version \d+\.\d+\.\d+\n", run("--version").stdout)


def decoys(folder):
    """Make modules of other people's with the names of our folders."""
    (folder / "storage.py").write_text("raise SystemExit('the decoy storage was imported')")
    for name in ("pipeline", "stages"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the decoy {name} was imported')")


@pytest.mark.parametrize("way", [["-m", "gradshard"], [str(Path(sys.executable).parent / "gradshard")]])
def test_foreign_packages_of_our_folders_names_change_nothing(copied_project, way):
    decoys(copied_project.path)
    command = [sys.executable, *way] if way[0] == "-m" else way
    done = subprocess.run(
        [*command, "precompute", "A"],
        cwd=copied_project.path,
        env=os.environ | {"PYTHONPATH": str(copied_project.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_copy_that_lost_its_links_says_so_in_one_sentence(tmp_path):
    (tmp_path / "gradshard").mkdir()
    for name in ("__init__.py", "__init__.pyi", "__main__.py"):
        shutil.copy(ROOT / "gradshard" / name, tmp_path / "gradshard")
    done = run("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "gradshard.stages is not there" in done.stderr
    assert "core.symlinks" in done.stderr


def test_on_a_terminal_there_is_a_bar_with_rate_and_time(copied_project):
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "gradshard", "train-static", "D"]
    process = subprocess.Popen(command, cwd=copied_project.path, stderr=terminal, env=os.environ | {"TERM": "xterm"})
    os.close(terminal)
    shown = b""
    while True:
        try:
            block = os.read(main, 4096)
        except OSError:
            break
        shown += block
    assert process.wait() == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert re.search(r"train-static D .*38/38 steps \d+\.\d/s 0:\d\d:\d\d", text), text
    assert "━" in text


def test_elsewhere_there_are_plain_lines(copied_project):
    output = copied_project.run("train-static", "D")
    assert re.search(r"^train-static D: 38/38 steps, \d+\.\d/s$", output, flags=re.MULTILINE)
    assert "\x1b" not in output


def test_an_interrupted_stage_says_how_to_go_on(copied_project):
    copied_project.edit(lambda params: params["static"]["D"].update(epochs=500))
    # A shell that starts the tests in the background has it ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = copied_project.popen("train-static", "D")
    while not list(copied_project.path.glob(".partial/train-static-D-*/checkpoint.safetensors")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "gradshard: interrupted; run the same command again to go on from there"
