"""``package.module:function``: what it may be, and what is said when it is something else."""

import hashlib
import sys

import pytest

from gradshard.pipeline import plugins
from gradshard.storage.errors import GradshardError

MODULE = """
def double(*, number):
    return 2 * number


constant = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Modules in the current folder that are on no path, as beside params.yaml."""
    (tmp_path / "mine_here.py").write_text(MODULE)
    (tmp_path / "mine_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "mine_invalid.py").write_text("def double(:\n")
    (tmp_path / "mine_failing.py").write_text("import math\n\nmath.nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


def test_a_function_beside_the_parameters_is_found(mine):
    assert plugins.find("mine_here:double", what="x")(number=4) == 8


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        (
            "mine_absent:double",
            "^attack x: there is no module mine_absent: run this in the folder that holds it, or ins",
        ),
        ("mine_broken:double", "^attack x: there is no module nothing_of_this_name"),
        ("mine_failing:double", r"^attack x: the module mine_failing cannot be imported \(AttributeError"),
        ("mine_invalid:double", r"^attack x: the module mine_invalid cannot be imported \(SyntaxError"),
        ("mine_here:triple", "^attack x: the module mine_here has no triple$"),
        ("mine_here:doubel", r"^attack x: the module mine_here has no doubel \(did you mean double\?\)$"),
        ("mine_here:DOUBLE", r"^attack x: the module mine_here has no DOUBLE \(did you mean double\?\)$"),
        ("mine_here:constan", "^attack x: the module mine_here has no constan$"),
        ("mine_here:constant", "^attack x: constant is no function$"),
    ],
)
def test_what_is_no_function_is_refused_in_one_sentence(mine, reference, sentence):
    with pytest.raises(GradshardError, match=sentence) as refused:
        plugins.find(reference, what="attack x")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({}, "missing a required argument: 'number'"),
        ({"number": 1, "colour": 2}, "got an unexpected keyword argument 'colour'"),
    ],
)
def test_arguments_that_a_function_does_not_take_are_told_before_it_is_called(mine, keywords, sentence):
    double = plugins.find("mine_here:double", what="x")
    plugins.check_call(double, {"number": 1}, what="x")
    with pytest.raises(GradshardError, match=rf"^table x: {sentence}: it takes number$"):
        plugins.check_call(double, keywords, what="table x")


def test_the_digest_is_that_of_the_file_a_function_is_defined_in(mine):
    found = plugins.source_digest("mine_here:double", what="x")
    assert found == hashlib.sha256((mine / "mine_here.py").read_bytes()).hexdigest()


@pytest.mark.parametrize("text", ["a:", ":f", "a b:f", "a:f()", "a..b:f", "a:f.g", "../a:f", "fgsm"])
def test_other_forms_are_no_references(text):
    assert not plugins.is_reference(text)
    assert plugins.is_reference("a.b_c:f1")
