"""The examples run as they stand, and show what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("torchvision")


def test_a_loop_of_ones_own_makes_a_robust_model_in_60_lines(tmp_path):
    file = ROOT / "examples/own_loop.py"
    assert len(file.read_text().splitlines()) <= 60
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    clean, attacked = ([float(part) for part in re.findall(r"([\d.]+)%", line)] for line in done.stdout.splitlines())
    assert max(clean) < 15
    assert attacked[1] < attacked[0] / 2


def test_the_page_about_a_loop_of_ones_own_shows_the_example():
    _, _, code = (ROOT / "examples/own_loop.py").read_text().split('"""', 2)
    assert code.strip() in (ROOT / "docs/your-loop.md").read_text()
