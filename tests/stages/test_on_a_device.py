"""A whole project on the GPU where there is one, else on the CPU; its store is judged on the CPU."""

import pytest

from gradshard.pipeline.audit.store import audit_store, plan_audit
from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.models.precision import choose_device
from gradshard.stages.store.origin import open_origin
from gradshard.storage.formats.sign_reader import open_store

pytestmark = pytest.mark.device


@pytest.fixture
def made(finished_project, device):
    """The folder of a project whose parameters leave the device to the machine."""
    params = read_params(finished_project.path / "params.yaml")
    assert choose_device(params.device) == device
    return finished_project.path


def test_every_stage_runs_to_the_report(made):
    assert (made / "report/index.html").stat().st_size > 10_000


def test_the_cpu_finds_the_store_honest(made):
    store = open_store(made / "signs/A.zarr")
    origin = open_origin(
        store.manifest, made / "models/static/A.safetensors", made / "data/npz.zarr", None, "cpu", where="A"
    )
    assert audit_store(
        plan_audit(store, origin.split, count=200, seed=0), store, origin.split, origin.model.module
    ).honest
