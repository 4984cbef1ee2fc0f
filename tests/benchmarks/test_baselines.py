"""The benchmark of ways of training gives each of them about the same passes."""

import pytest

from benchmarks.baselines import TRAININGS, Digits, table


@pytest.mark.slow
def test_all_ways_of_training_make_about_as_many_passes_and_have_a_line(tmp_path):
    digits = Digits.read(tmp_path, rows=64, held_back=10, test=10)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(digits, 1)][2:]
    assert [line[0] for line in lines] == [training.title for training in TRAININGS]
    assert all(50 <= float(line[2]) <= 70 for line in lines)
    assert all(0 <= float(error) <= 100 for line in lines for error in line[3:5])
