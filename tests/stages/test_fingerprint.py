"""The fingerprint of raw data: it changes with what ``prepare`` reads, and with nothing else."""

import os
import shutil

import numpy as np
import pytest

from tests.helpers.idx_files import write_idx_folder
from tests.helpers.imagefolders import write_folder


@pytest.fixture
def fingerprint(gradshard, project):
    """Take the fingerprint of the project's raw data; gives the text of the file."""

    def take():
        code, said = gradshard(project, "fingerprint")
        assert code == 0, said
        return (project.path / "data/raw.json").read_text()

    return take


@pytest.fixture
def images(project, digits):
    dataset = {"name": "imagefolder", "path": "images", "size": 32, "class_names": "names.txt"}
    project.edit(lambda params: params.update(dataset=dataset))
    (project.path / "names.txt").write_text("\n".join(f"digit{digit}" for digit in range(10)))
    return write_folder(project.path / "images", digits, train=40, test=20)


def test_another_archive_of_the_same_size_and_date_is_noticed(project, fingerprint):
    file = project.path / "digits.npz"
    before, date = fingerprint(), file.stat().st_mtime_ns
    assert fingerprint() == before
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(date, date))
    assert fingerprint() != before


def test_a_changed_idx_file_is_noticed(project, fingerprint):
    folder = write_idx_folder(project.path / "raw")
    project.edit(lambda params: params.update(dataset={"name": "idx", "path": "raw"}))
    before = fingerprint()
    file = folder / "t10k-labels-idx1-ubyte"
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    file.write_bytes(content[::-1].tobytes())
    assert fingerprint() != before


@pytest.mark.parametrize(
    "change",
    [
        lambda f: next(f.glob("train/*/*")).unlink(),
        lambda f: next(f.glob("val/*/*")).write_bytes(b"another"),
        lambda f: os.utime(next(f.glob("train/*/*")), ns=(1, 1)),
        lambda f: next(f.glob("train/digit1/*")).rename(f / "train/digit2/moved.png"),
        lambda f: (f.parent / "names.txt").write_text("\n".join(f"digit{digit}" for digit in (*range(1, 10), 0))),
        lambda f: (f.parent / "names.txt").write_text("\n".join([f"digit{digit}" for digit in range(10)] + ["more"])),
    ],
    ids=["removed", "other bytes", "another date", "another class", "names in another order", "one more name"],
)
def test_a_changed_folder_of_images_is_noticed(images, fingerprint, change):
    before = fingerprint()
    change(images)
    assert fingerprint() != before


def test_what_prepare_does_not_read_changes_nothing(images, fingerprint):
    before = fingerprint()
    (images / "train/digit1/notes.txt").write_text("new")
    (images / "train/.DS_Store").write_text("new")
    assert fingerprint() == before


def test_where_the_raw_data_is_not_the_fingerprint_stays(images, project, gradshard, fingerprint):
    before = fingerprint()
    shutil.rmtree(images)
    assert fingerprint() == before
    (project.path / "data/raw.json").unlink()
    code, said = gradshard(project, "fingerprint")
    assert code == 2
    assert "there is no folder images" in said


def test_a_dataset_of_fixed_content_needs_no_raw_data(project, fingerprint):
    project.edit(lambda params: params.update(dataset={"name": "mnist5k"}))
    assert fingerprint() == '{"dataset":"mnist5k"}\n'


def test_a_dataset_that_a_function_makes_is_its_file_and_its_arguments(project, fingerprint):
    (project.path / "my_data.py").write_text("def stripes(*, rows):\n    return {}\n")
    dataset = {"name": "s", "call": "my_data:stripes", "arguments": {"rows": 9}}
    project.edit(lambda params: params.update(dataset=dataset))
    first = fingerprint()
    assert fingerprint() == first
    project.edit(lambda params: params["dataset"]["arguments"].update(rows=8))
    assert fingerprint() != first
