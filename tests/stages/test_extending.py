"""An attack, a dataset, a model and a table from elsewhere, by the code that docs/extending.md shows."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.results import read_matrix
from tests.helpers.refusals import refused

PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text()
# In the order of the page.
MODULES = ("my_attacks", "my_data", "my_models", "my_tables")


def parameters_of_the_page() -> dict:
    """Everything that the page writes into the parameters."""
    changes = {}
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL):
        changes |= YAML(typ="safe").load(text)
    return changes


@pytest.fixture
def modules():
    """Write the page's modules, and others, beside the parameters of a project."""

    def write(project, **others):
        codes = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
        for name, code in {**dict(zip(MODULES, codes, strict=True)), **others}.items():
            (project.path / f"{name}.py").write_text(code)

    return write


def test_each_example_is_under_20_lines():
    codes = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert [len(code.splitlines()) < 20 for code in codes] == [True] * len(MODULES)


THEIRS = {
    "fade": {"call": "my_attacks:fade", "arguments": {"share": 0.9}},
    "difgsm": {"call": "torchattacks:DIFGSM", "arguments": {"alpha": "1/10", "steps": 4}},
    "ta-fgsm": {"call": "torchattacks:FGSM"},
    "fb-fgsm": {"call": "foolbox:LinfFastGradientAttack"},
}


def with_their_attacks(params):
    params["attack"]["custom"] = THEIRS
    params["analysis"]["tables"] = ["my_tables:strongest"]
    params["evaluation"] |= {
        "targets": ["A", "B", "A_adv"],
        "attacks": {name: ["A", "B"] for name in ("fgsm", *THEIRS)},
        "gradients": ["cross_entropy"],
        "illustrated": ["A"],
        "diagnosed": [],
    }


def test_attacks_and_a_table_from_elsewhere_stand_beside_ours(gradshard, copied_project, modules):
    modules(copied_project)
    copied_project.edit(with_their_attacks)
    for stage in ("evaluate", "report"):
        code, said = gradshard(copied_project, stage)
        assert code == 0, said
    rows = read_matrix(copied_project.path / "evaluation/10/matrix.parquet")
    errors = {(row["attack"], row["source"], row["target"]): row["errors"] for row in rows}
    assert {attack for attack, _, _ in errors} == {"clean", "fgsm", *THEIRS, "worst_case"}
    for source in ("A", "B"):
        for target in ("A", "B", "A_adv"):
            ours = errors["fgsm", source, target]
            assert errors["ta-fgsm", source, target] == errors["fb-fgsm", source, target] == ours
            assert errors["worst_case", "any", target] >= errors["difgsm", source, target]
    assert errors["difgsm", "B", "B"] > errors["fade", "B", "B"]
    metrics = json.loads((copied_project.path / "evaluation/10/metrics.json").read_text())
    assert metrics["A_adv"]["difgsm_B"] == errors["difgsm", "B", "A_adv"] / 120
    provenance = json.loads((copied_project.path / "evaluation/10/provenance.json").read_text())
    assert provenance["attacks"].keys() == THEIRS.keys()
    assert provenance["attacks"]["difgsm"].startswith("torchattacks ")
    tables = (copied_project.path / "report/tables.md").read_text()
    assert "## difgsm examples transferred between models" in tables
    assert "## The strongest attack from a static model" in tables
    assert (copied_project.path / "report/tables/strongest.csv").exists()
    page = (copied_project.path / "report/index.html").read_text()
    assert "fade examples transferred between models" in page
    assert "Your own tables" in page


@pytest.mark.slow
def test_worker_processes_find_an_attack_from_elsewhere_and_give_the_same_examples(gradshard, copied_project, modules):
    modules(copied_project)
    copied_project.edit(with_their_attacks)
    outputs = [copied_project.path / "evaluation/10" / name for name in ("matrix.parquet", "examples.parquet")]
    found = []
    for workers in ("0", "2"):
        code, said = gradshard(copied_project, "evaluate", "--workers", workers)
        assert code == 0, said
        found.append([output.read_bytes() for output in outputs])
    assert found[0] == found[1]


FAR = """
def far(model, images, labels, *, epsilon):
    return images + 1.5 * epsilon * (0.5 - images).sign()
"""


@pytest.mark.parametrize(
    ("call", "saying"),
    [
        (
            "my_far:far",
            "attack.custom.theirs (my_far:far) moved 120 of 120 images by more than eps, which is 0.3",
        ),
        ("my_far:near", "attack.custom.theirs (my_far:near): the module my_far has no near"),
        ("my_absent:far", "attack.custom.theirs (my_absent:far): there is no module my_absent"),
    ],
)
def test_an_attack_that_is_none_is_refused_by_name(gradshard, copied_project, modules, call, saying):
    modules(copied_project, my_far=FAR)

    def change(params):
        params["attack"]["custom"] = {"theirs": {"call": call}}
        params["evaluation"] |= {"targets": ["A"], "attacks": {"theirs": ["A"]}, "diagnosed": [], "illustrated": []}

    copied_project.edit(change)
    refused(gradshard, copied_project, "evaluate", saying=saying)


def test_a_dataset_and_a_model_from_elsewhere_are_prepared_and_trained(gradshard, project, modules):
    modules(project)
    page = parameters_of_the_page()
    project.edit(lambda params: params.update(dataset=page["dataset"]))
    project.edit(lambda params: params["static"].update(page["static"]))
    for arguments in (["prepare"], ["train-static", "A"]):
        code, said = gradshard(project, *arguments)
        assert code == 0, said
    data = open_dataset(project.path / "data/stripes.zarr")
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("stripes", 2, 1000, 1000)
    assert data.sample_shape == (1, 16, 16)
    assert json.loads((project.path / "training/A.json").read_text())["steps"] > 0


DATA = """
import numpy as np

images, labels = np.zeros((4, 1, 5, 5), np.uint8), np.arange(4)
wide = np.zeros((4, 1, 5, 6), np.uint8)


def no_test():
    return {"train": (images, labels)}


def floats():
    return {"train": (images / 255, labels), "test": (images, labels)}


def one_hot():
    return {"train": (images, np.eye(4)), "test": (images, labels)}


def two_sizes():
    return {"train": (images, labels), "test": (wide, labels)}


def durations():
    return {"train": (images, labels.astype("timedelta64[s]")), "test": (images, labels)}


def far_label():
    return {"train": (images, np.array([1, 2, 3, 255])), "test": (images, labels)}


def from_one():
    return {"train": (images, np.array([1, 2, 3, 3])), "test": (images, np.array([1, 2, 3, 3]))}


def fewer_labels():
    return {"train": (images, labels), "test": (images, labels[:3])}


def failing():
    return {}["rows"]
"""


@pytest.mark.parametrize(
    ("function", "saying"),
    [
        ("no_test", "gave no {'train': (images, labels), 'test': (images, labels)} (KeyError: 'test'"),
        ("floats", "train: images must be uint8 of shape (N, C, H, W), but are float64 of shape (4, 1, 5, 5)"),
        ("one_hot", "split train: labels must be integers of shape (N,), but are float64 of shape (4, 4)"),
        ("durations", "train: labels must be integers of shape (N,), but are timedelta64[s] of shape (4,)"),
        ("far_label", "label 255 of row 3 in train would make 256 classes, of which 251 have no image"),
        ("two_sizes", "the images of train are of shape"),
        ("fewer_labels", "test: 4 images but 3 labels"),
        ("failing", "(KeyError: 'rows', "),
        ("absent", "the module my_arrays has no absent"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused_by_name(gradshard, project, modules, function, saying):
    modules(project, my_arrays=DATA)
    project.edit(lambda params: params.update(dataset={"name": "mine", "call": f"my_arrays:{function}"}))
    refused(gradshard, project, "prepare", saying=saying)
    assert f"dataset mine (my_arrays:{function})" in gradshard(project, "prepare")[1]


def test_classes_without_examples_of_a_dataset_from_elsewhere_are_told(gradshard, project, modules):
    modules(project, my_arrays=DATA)
    project.edit(lambda params: params.update(dataset={"name": "mine", "call": "my_arrays:from_one"}))
    code, said = gradshard(project, "prepare")
    assert code == 0, said
    assert "note: dataset mine (my_arrays:from_one): class 0 has no examples in train, of 4 classes" in said


def test_images_may_come_from_a_file_that_is_mapped(gradshard, project, modules, digits):
    images, labels = digits["train"]
    np.save(project.path / "images.npy", images[:50])
    code = f"""
import numpy as np

def mapped(*, file):
    return {{"train": (np.load(file, mmap_mode="r"), {labels[:50].tolist()}), "test": TEST}}

TEST = (np.zeros((2, 1, 28, 28), np.uint8), [0, 1])
"""
    modules(project, my_files=code)
    mine = {"name": "mine", "call": "my_files:mapped", "arguments": {"file": "images.npy"}, "classes": 10}
    project.edit(lambda params: params.update(dataset=mine))
    assert gradshard(project, "prepare")[0] == 0
    data = open_dataset(project.path / "data/mine.zarr")
    assert np.array_equal(data.train.read_images(0, 50), images[:50])
    assert data.classes == 10


TABLES = """
from gradshard.pipeline.report.table import NumberCell, Table


def table(name, rows):
    return Table(name, "Mine", "model", ["a", "b"], rows)


def no_table(*, rows, params):
    return rows


def short(*, rows, params):
    return table("mine", [("A", [NumberCell(1.0)])])


def bare(*, rows, params):
    return table("mine", [("A", [1.0, 2.0])])


def numbered(*, rows, params):
    return table("mine", [(3, [NumberCell(1.0), NumberCell(2.0)])])


def slash(*, rows, params):
    return table("../mine", [])


def taken(*, rows, params):
    return table("gradient-norms", [])


def positional(rows):
    return table("mine", [])


def failing(*, rows, params):
    return rows[0]["no_column"]
"""


@pytest.mark.parametrize(
    ("function", "saying"),
    [
        ("no_table", "table my_results:no_table returned a list and not a gradshard.pipeline.report.table.Table"),
        ("short", "table my_results:short has 2 columns but 1 cells in row A"),
        ("bare", "table my_results:bare has a float in row A: give cells, such as NumberCell(number)"),
        ("numbered", "table my_results:numbered has a row whose head is 3: give text"),
        ("slash", "table my_results:slash is named '../mine'"),
        ("taken", "two tables of the report are named gradient-norms: give yours of analysis.tables another name"),
        ("positional", "table my_results:positional: got an unexpected keyword argument 'params': it takes rows"),
        ("failing", "table my_results:failing failed (KeyError: 'no_column'"),
    ],
)
def test_what_is_no_table_is_refused_by_name(gradshard, copied_project, modules, function, saying):
    modules(copied_project, my_results=TABLES)
    copied_project.edit(lambda params: params["analysis"].update(tables=[f"my_results:{function}"]))
    refused(gradshard, copied_project, "report", saying=saying)
