"""Fixtures that tests share: an analytic model, a dataset on disk, a sign store, a finished project."""

import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
import torch

from gradshard.pipeline.models.precision import choose_device
from gradshard.storage.formats.dataset import Dataset, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.ingest.sources import mnist5k
from tests.helpers.linear_model import LinearModel
from tests.helpers.projects import Project, call, call_each, new_project
from tests.helpers.stores import build_store

# Workers of pytest-xdist share the cores: if each had threads on all of them, most would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

# With deadlines, tests would depend on the speed of the machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _forget_the_modules_of_a_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test wrote and imported: those of another test may have the same names."""
    path, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    folder = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - known:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
        if any(str(place).startswith(folder) for place in places):
            del sys.modules[name]


@pytest.fixture
def linear_model() -> Callable[..., LinearModel]:
    """Make a linear model with random weights for images of (1, 3, 4) pixels."""

    def make(*, classes: int = 2, seed: int = 0, scale: float = 1.0) -> LinearModel:
        generator = torch.Generator().manual_seed(seed)
        weight = scale * torch.randn(classes, 12, generator=generator)
        return LinearModel(weight, torch.randn(classes, generator=generator))

    return make


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU if there is one, else the CPU, for tests with the marker ``device``."""
    return choose_device("auto")


@pytest.fixture(scope="session")
def digits() -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]]:
    """The 5,000 real digits, by split."""
    return dict(mnist5k().splits)


def _unpacked(archive: str, into: Path) -> Path:
    """Unpack an archive in GRADSHARD_DATA, and return its folder of real images; skip the test without it."""
    path = Path(os.environ.get("GRADSHARD_DATA", "")) / archive
    if "GRADSHARD_DATA" not in os.environ or not path.is_file():
        pytest.skip(f"GRADSHARD_DATA names no folder with {archive}")
    with tarfile.open(path) as archived:
        archived.extractall(into, filter="data")
    (folder,) = into.iterdir()
    return folder


@pytest.fixture(scope="session")
def imagenet_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 photographs of ImageNet, ``train`` and ``val``, one folder for each synset."""
    return _unpacked("imagenet-sample.tar.gz", tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="session")
def cifar10_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12,000 images of CIFAR-10, ``train`` and ``test``, one folder for each class."""
    return _unpacked("cifar10-images.tar.gz", tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="session")
def small_dataset_path(tmp_path_factory: pytest.TempPathFactory, digits: dict) -> Path:
    """A dataset on disk of 700 training and 100 test digits, in several shards."""
    path = tmp_path_factory.mktemp("data") / "digits.zarr"
    splits = {
        "train": tuple(part[:700] for part in digits["train"]),
        "test": tuple(part[:100] for part in digits["test"]),
    }
    assert sum(write_dataset(path, name="digits", classes=10, splits=splits)) == 800
    return path


@pytest.fixture
def small_dataset(small_dataset_path: Path) -> Dataset:
    return open_dataset(small_dataset_path)


@pytest.fixture
def small_store(tmp_path: Path, small_dataset: Dataset) -> SignStore:
    """A published store of random signs over the small dataset."""
    return build_store(tmp_path / "building", small_dataset, tmp_path / "M.zarr")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore the number of torch's threads, which a test may set, for the next test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def project(tmp_path: Path, digits: dict) -> Project:
    """A project before its first stage."""
    return new_project(tmp_path / "project", digits)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, digits: dict) -> Project:
    """A project in which every stage ran; a test that changes it must copy it."""
    project = new_project(tmp_path_factory.mktemp("finished") / "project", digits)
    call_each(
        project,
        ("prepare",),
        *(("train-static", model) for model in "ABCD"),
        *(("precompute", model) for model in "ACD"),
        *(("train-robust", model) for model in ("A_adv", "A_adv-ens")),
        ("evaluate",),
        ("analyze",),
        ("blackbox",),
        ("report",),
    )
    return project


@pytest.fixture
def copied_project(finished_project: Project, tmp_path: Path) -> Project:
    """A copy of a project in which every stage ran."""
    return finished_project.copy_to(tmp_path / "project")


@pytest.fixture
def gradshard(monkeypatch, capsys):
    """Run the command line in a project's folder; return the exit code and the output on standard error."""

    def run(project: Project, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(project.path)
        capsys.readouterr()
        code = call(monkeypatch, *arguments)
        return code, capsys.readouterr().err

    return run
