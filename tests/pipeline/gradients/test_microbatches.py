"""The number of images that pass at once follows from measured memory and the device's, never from pixels."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradshard.pipeline import models
from gradshard.pipeline.gradients import device_memory
from gradshard.pipeline.gradients.device_memory import limit_memory, pass_memory
from gradshard.pipeline.gradients.microbatches import fit, in_microbatches, microbatches, rows_at_once
from gradshard.pipeline.gradients.pass_memory import pass_bytes
from gradshard.pipeline.gradients.watching import Watched
from gradshard.storage.errors import GradshardError

CPU = torch.device("cpu")
SHAPE = (1, 28, 28)
MIB = 1 << 20


@pytest.fixture
def allow():
    """Let all cores together take so many bytes."""
    cores = device_memory._cores()
    yield lambda size: limit_memory(size * cores)
    limit_memory(None)


@pytest.fixture
def model():
    return models.create_model("A", SHAPE, 10, seed=0).eval().requires_grad_(False)


class Wide(nn.Module):
    """Makes ``width`` MiB of each image, whatever its pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.flatten(1).mean(1, keepdim=True)
        return functional.pad(mean.expand(-1, self.width * MIB // 4).exp().mean(1, keepdim=True), (0, 9))


def test_a_pass_is_measured_the_same_each_time_and_grows_with_the_images(model):
    one, two, eight = (pass_bytes(model, torch.zeros(count, *SHAPE)) for count in (1, 2, 8))
    assert one == pass_bytes(model, torch.zeros(1, *SHAPE))
    assert eight == pytest.approx(one + 7 * (two - one), rel=0.02)
    # The first layer's 64 maps of 24 x 24 pixels, float32, are kept for the way back.
    assert two - one > 4 * 64 * 24 * 24


def test_a_measured_model_is_left_as_it_was(model):
    watched, drawn = Watched(model), torch.get_rng_state()
    rows_at_once(SHAPE, CPU, watched)
    assert watched.rows == 0
    assert not model.training
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize(("room", "rows"), [(1, 1), (11, 1), (49, 8), (97, 16), (10_000, 128)])
def test_as_many_images_pass_as_there_is_memory_for(allow, room, rows):
    allow(room * MIB)
    # Its values, what is kept of them for the way back, and the gradient.
    found = fit(Wide(2).eval(), SHAPE, CPU)
    assert found.image == pytest.approx(6 * MIB, rel=0.01)
    assert found.rows == rows


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 299, 299)])
def test_pixels_alone_do_not_matter(allow, shape):
    allow(64 * MIB)
    assert rows_at_once(shape, CPU, Wide(4).eval()) == 4


def test_of_several_models_the_largest_decides(allow):
    allow(64 * MIB)
    small, large = Wide(2).eval(), Wide(8).eval()
    assert rows_at_once(SHAPE, CPU, small, large) == rows_at_once(SHAPE, CPU, large) < rows_at_once(SHAPE, CPU, small)


def test_a_share_of_the_memory_is_taken_by_all_cores_together():
    taken = pass_memory(CPU) * device_memory._cores()
    assert 0.9 * device_memory.device_memory(CPU) / 8 < taken <= device_memory.device_memory(CPU) / 8


def test_the_smaller_of_machine_and_container_counts(tmp_path, monkeypatch):
    limits = [tmp_path / "memory.max", tmp_path / "nowhere"]
    limits[0].write_text(f"{512 * MIB}\n")
    monkeypatch.setattr(device_memory, "_CGROUP_LIMITS", limits)
    assert device_memory.device_memory.__wrapped__(CPU) == 512 * MIB
    limits[0].write_text("max\n")
    assert device_memory.device_memory.__wrapped__(CPU) > 512 * MIB


def test_rows_are_cut_into_microbatches(allow, model):
    assert list(microbatches(torch.empty(300, *SHAPE), model)) == [slice(0, 128), slice(128, 256), slice(256, 300)]
    assert list(microbatches(torch.empty(0, *SHAPE), model)) == []


def test_out_of_memory_halves_and_goes_on(model, caplog):
    passed = []

    def compute(rows: slice) -> slice:
        if rows.stop - rows.start > 40:
            raise torch.cuda.OutOfMemoryError
        passed.append(rows)
        return rows

    images = torch.zeros(300, *SHAPE)
    assert in_microbatches(compute, images, model) == passed
    assert [rows.start for rows in passed] == list(range(0, 300, 32))
    assert "128 images at once: going on with 64" in caplog.text
    assert rows_at_once(SHAPE, CPU, model) == 32, "the next pass begins with what there was room for"


def test_no_memory_for_one_image_is_told_in_a_sentence(model):
    def compute(rows: slice) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(GradshardError, match=r"no memory left for a single image of shape \(1, 28, 28\)"):
        in_microbatches(compute, torch.zeros(4, *SHAPE), model)


def test_measuring_does_not_import_the_compiler():
    code = (
        "import sys, torch; from gradshard.pipeline.gradients.pass_memory import pass_bytes;"
        "pass_bytes(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
