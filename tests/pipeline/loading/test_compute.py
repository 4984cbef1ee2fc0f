"""compute_signs: the store that ``gradshard precompute`` makes, of models and datasets as people have them."""

import copy
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.loading import compute_signs
from gradshard.pipeline.models.normalize import Normalised
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.maintenance.verify import verify
from tests.helpers.mounts import run_on_disk
from tests.pipeline.loading.conftest import Digits, files, jittered, signs_of


def test_the_store_is_byte_for_byte_the_one_that_precompute_makes(project, gradshard):
    for arguments in (("prepare",), ("train-static", "A"), ("precompute", "A")):
        assert gradshard(project, *arguments)[0] == 0
    path = project.path / "models/static/A.safetensors"
    split = open_dataset(project.path / "data/npz.zarr").train
    tensors, _ = checkpoints.load(path)
    model = models.load_frozen("D", (1, 28, 28), 10, tensors, where=str(path))
    store = compute_signs(
        model, Digits(*split.load()), "signs/mine.zarr", name="npz", model_name="A", architecture="D", weights=path
    )
    assert store.layout.shards >= 10
    assert files(project.path / "signs/mine.zarr") == files(project.path / "signs/A.zarr")


_ELSEWHERE = """
import sys
import numpy as np
from torch import nn
from gradshard.pipeline.loading import compute_signs
images = np.random.default_rng(0).integers(256, size=(20, 1, 4, 4), dtype=np.uint8)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)).eval()
print(len(compute_signs(model, (images, np.arange(20) % 10), sys.argv[1])))
"""


def test_a_store_is_made_elsewhere_from_where_nothing_can_be_written(tmp_path):
    target = tmp_path / "signs" / "S.zarr"
    done = run_on_disk("ro", tmp_path / "disk", sys.executable, "-c", _ELSEWHERE, str(target))
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr
    assert not list(verify(Folder(target), read_manifest(target), advance=lambda shards: None, threads=1))
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"{target} is made, but the hashes of the dataset's rows cannot be kept in .partial/loading")


@pytest.mark.parametrize("options", [{"workers": 2}, {"threads": 1}, {"threads": 3}], ids=str)
def test_processes_and_threads_change_no_byte(model, base, store, options):
    compute_signs(model, base, "other/D.zarr", name="digits", **options)
    assert files(Path("other/D.zarr")) == files(Path("signs/D.zarr"))


KILLED = """
import sys, torch
from gradshard.pipeline import models
from gradshard.pipeline.loading import compute_signs
from gradshard.storage.ingest.sources import mnist5k
images, labels = mnist5k().splits["train"]
model = models.create_model("D", (1, 28, 28), 10, seed=0).eval()
def tell(done, total):
    print(done, flush=True)
compute_signs(model, (images, labels), "signs/D.zarr", name="digits", on_rows=tell)
"""


def test_killed_and_begun_again_it_computes_what_is_missing_and_ends_with_the_same_bytes(digits):
    model = models.create_model("D", (1, 28, 28), 10, seed=0).eval()
    compute_signs(model, digits["train"], "whole/D.zarr", name="digits")
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    before = [int(line) for line in itertools.islice(process.stdout, 2)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("signs/D.zarr").exists()
    killed, after = time.time_ns(), []
    compute_signs(model, digits["train"], "signs/D.zarr", name="digits", on_rows=lambda rows, _: after.append(rows))
    assert files(Path("signs/D.zarr")) == files(Path("whole/D.zarr"))
    assert after[0] > before[1]
    written = [path.stat().st_mtime_ns for path in sorted(Path("signs/D.zarr/signs/c").glob("*/0/0"))]
    assert sum(time < killed for time in written) >= 2
    assert sum(time > killed for time in written) == len(after)


def test_a_store_that_is_there_is_opened_and_another_models_is_not_written_over(model, base, store):
    before = files(Path("signs/D.zarr"))
    again = compute_signs(model, base, "signs/D.zarr", name="digits", on_rows=lambda *_: pytest.fail("computed"))
    assert again.manifest == store.manifest
    with pytest.raises(GradshardError, match="holds the signs of another model"):
        compute_signs(model, base, "signs/D.zarr", name="digits", label="least_likely")
    with pytest.raises(GradshardError, match="holds the signs of another model"):
        compute_signs(model, base, "signs/D.zarr", name="digits", output=lambda logits: logits * torch.arange(10))
    Path("thesis").mkdir()
    with pytest.raises(GradshardError, match="thesis is there already and is no sign store"):
        compute_signs(model, base, "thesis")
    assert files(Path("signs/D.zarr")) == before


def huggingface(images, labels):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    pictures = [Image.fromarray(image[0]) for image in images]
    return datasets.Dataset.from_dict({"img": pictures, "label": labels.tolist()}, features=features)


@pytest.mark.parametrize(
    "form",
    [
        lambda images, labels: (images, labels),
        lambda images, labels: (torch.from_numpy(images), torch.from_numpy(labels)),
        lambda images, labels: (images[:, 0], labels),
        lambda images, labels: torch.utils.data.TensorDataset(
            torch.from_numpy(images) / 255, torch.from_numpy(labels).long()
        ),
        lambda images, labels: [(Image.fromarray(i[0]), np.int64(k)) for i, k in zip(images, labels, strict=True)],
        huggingface,
    ],
    ids=["arrays", "tensors", "grey", "floats", "pictures", "huggingface"],
)
def test_every_form_of_a_dataset_gives_the_same_store(model, rows, store, form):
    compute_signs(model, form(*rows), "other/D.zarr", name="digits")
    assert files(Path("other/D.zarr")) == files(Path("signs/D.zarr"))


class Wrapped(nn.Module):
    """A model whose logits are a part of what it gives."""

    def __init__(self, model, form):
        super().__init__()
        self.model, self.form = model, form

    def forward(self, images):
        return self.form(self.model(images))


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (lambda logits: SimpleNamespace(logits=logits), None),
        (lambda logits: {"logits": logits}, None),
        (lambda logits: (None, logits), lambda found: found[1]),
    ],
    ids=["attribute", "mapping", "function"],
)
def test_logits_are_found_in_what_a_model_gives(model, base, store, form, output):
    other = compute_signs(Wrapped(model, form).eval(), base, "other/D.zarr", output=output)
    assert other.manifest.content == store.manifest.content


def test_a_normalisation_that_is_told_is_part_of_the_gradient_and_of_the_models_digest(base, rows):
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    store = compute_signs(bare, base, "signs/bare.zarr", mean=[0.13], std=[0.31])
    inside = compute_signs(Normalised(bare, [0.13], [0.31], channels=1).eval(), base, "signs/inside.zarr")
    assert store.manifest.content == inside.manifest.content
    without = compute_signs(bare, base, "signs/without.zarr")
    assert without.manifest.content != store.manifest.content
    assert without.manifest.model.digest != store.manifest.model.digest
    images = torch.from_numpy(rows[0][:50]).double() / 255
    grad, _ = input_gradient(lambda x: bare.double()((x - 0.13) / 0.31), images, None, policy="predicted")
    stored = np.stack([signs_of(store, row) for row in range(50)])
    assert (grad.sign().numpy() != stored).mean() < 1e-3


def test_a_store_made_here_verifies_and_says_what_it_is(model, base):
    compute_signs(model, base, "signs/D.zarr", name="digits", split="mine", licence="MIT", precision="bf16")
    manifest = read_manifest(Path("signs/D.zarr"))
    assert verify(Folder(Path("signs/D.zarr")), manifest, advance=lambda _: None, threads=1) == []
    assert (manifest.dataset.name, manifest.dataset.split, manifest.dataset.classes) == ("digits", "mine", 10)
    assert (manifest.model.name, manifest.licence) == ("D", "MIT")
    assert manifest.direction.agreement.rows == 256


def test_rows_at_which_the_gradient_is_0_do_not_speak_for_all(rows):
    images, labels = rows
    images = images.copy()
    images[:8] = 0
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 20, bias=False), nn.ReLU(), nn.Linear(20, 10)).eval()
    store = compute_signs(model, (images, labels), "signs/S.zarr")
    assert store.read(0, 8)[:, 1].all()  # 0 in every pixel
    assert store.manifest.zero_fraction < 0.1


def test_the_model_is_left_as_it_was(base):
    model = models.create_model("D", (1, 28, 28), 10, seed=0).eval()
    before, threads = {name: part.clone() for name, part in model.state_dict().items()}, torch.get_num_threads()
    compute_signs(model, base, "signs/D.zarr")
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(part.requires_grad and part.grad is None for part in model.parameters())
    assert torch.get_num_threads() == threads


def test_a_model_that_keeps_something_between_its_parts_is_not_mixed_up_by_threads(model, base, store):
    """What one thread keeps while another passes by would be the other's."""

    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            self.kept = images
            time.sleep(0.05)
            return self.model(self.kept)

    other = compute_signs(Keeping().eval(), base, "other/D.zarr", threads=4)
    assert other.manifest.content == store.manifest.content


class Rooted(nn.Module):
    """Its gradient is infinity times zero where a pixel is 0."""

    def forward(self, images):
        return (images.flatten(1).sqrt() * 0 + images.flatten(1))[:, :10]


def half(rows):
    return Digits(rows[0], np.where(np.arange(len(rows[1])) == 333, 12, rows[1]))


class Late(nn.Module):
    """Its gradient is not a number for images of a given mean, and every other's is."""

    def __init__(self, model, mean):
        super().__init__()
        self.model, self.at = model, mean

    def forward(self, images):
        distance = (images.mean((1, 2, 3)) - self.at).abs()
        return self.model(images) * torch.where(distance < 1e-7, torch.nan, 1.0)[:, None]


class Body(nn.Module):
    """A trained model behind something that its owner does."""

    def __init__(self, model, before):
        super().__init__()
        self.model, self.before = model, before

    def forward(self, images):
        return self.model(self.before(images))


class Normalize(nn.Module):
    """As in many a library: what a model is put behind."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images):
        return (images - self.mean) / self.std


def masked(model):
    """The first layer's weights as a sparse tensor."""
    model = copy.deepcopy(model)
    first = next(part for part in model.modules() if isinstance(part, nn.Linear))
    first.weight = nn.Parameter(first.weight.detach().to_sparse(), requires_grad=False)
    return model


def late(model, rows):
    return Late(model, (torch.from_numpy(rows[0][612]).float() / 255).mean().item()).eval(), Digits(*rows)


class Changing(Digits):
    """Every pixel stays, but for one row from the second reading on: too rare for any sample."""

    def __init__(self, *rows):
        super().__init__(*rows)
        self.read = 0

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        self.read += row == 13
        return (image.flip(-1) if row == 13 and self.read > 1 else image), label


class Brighter(Digits):
    """Floats of which one row, that no sample looks at, is not in [0, 1]."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return (image * 2 if row == 333 else image), label


def dropping(model):
    model = nn.Sequential(model, nn.Dropout(0.5)).eval()
    model[1].train()
    return model


WRONG = {
    "train": (lambda m, r: (models.create_model("D", (1, 28, 28), 10, seed=0), Digits(*r)), "is in train mode"),
    "probabilities": (lambda m, r: (nn.Sequential(m, nn.Softmax(1)).eval(), Digits(*r)), "gives probabilities"),
    "nan": (lambda m, r: (Rooted().eval(), Digits(*r)), "gradient is NaN or infinite for .* row 0"),
    "random": (lambda m, r: (m, Digits(*r, jittered)), "a random transform is left in"),
    "rarely": (lambda m, r: (m, Changing(*r)), "row 13 of the dataset gives other pixels"),
    "normalised": (lambda m, r: (m, Digits(*r, lambda x: (x - 0.13) / 0.31)), r"row 0 .* not in \[0, 1\]"),
    "brighter": (lambda m, r: (m, Brighter(*r)), r"row 333 of the dataset has pixels .* not in \[0, 1\]"),
    "scaled": (lambda m, r: (m, Digits(*r, lambda x: x * 255)), r"not in \[0, 1\]"),
    "resized": (lambda m, r: (m, Digits(*r, lambda x: x * 0.77)), "between the multiples of 1/255"),
    "label": (lambda m, r: (m, half(r)), "row 333 of the dataset has the label 12, but the model has 10"),
    "shape": (lambda m, r: (m, Digits(r[0][:, :, :20], r[1])), "does not take images of shape"),
    "output": (lambda m, r: (Wrapped(m, lambda z: (z, z)).eval(), Digits(*r)), "by output="),
    "last": (lambda m, r: (m, (r[0].reshape(-1, 28, 28, 1), r[1])), "channels last"),
    "stream": (lambda m, r: (m, iter(())), "no dataset whose rows have numbers"),
    "triple": (lambda m, r: (m, [(1, 2, 3)]), "no pair"),
    "onehot": (lambda m, r: (m, [(r[0][0], np.eye(10)[3])]), "the number of its class"),
    "empty": (lambda m, r: (m, []), "no rows"),
    "late nan": (late, "gradient is NaN or infinite for .* row 612"),
    "half": (lambda m, r: (dropping(m), Digits(*r)), r"\(its part 1\) is in train mode"),
    "noisy": (lambda m, r: (Body(m, lambda x: x + torch.rand_like(x)).eval(), Digits(*r)), "is random in eval mode"),
    "batch": (lambda m, r: (Body(m, lambda x: x - x.mean(0)).eval(), Digits(*r)), "other logits alone than in a batch"),
    "in place": (lambda m, r: (Body(m, lambda x: x.sub_(0.5)).eval(), Digits(*r)), "changes the images that it is"),
    "rounds": (lambda m, r: (Body(m, torch.round).eval(), Digits(*r)), "gradient is 0 in every pixel of 8 of 8"),
    "detached": (lambda m, r: (Body(m, torch.detach).eval(), Digits(*r)), "lets no gradient through"),
    "jit": (lambda m, r: (torch.jit.trace(m, torch.rand(2, 1, 28, 28)).eval(), Digits(*r)), "was made by torch.jit"),
    "meta": (lambda m, r: (copy.deepcopy(m).to("meta"), Digits(*r)), r"a tensor without values \(device meta\)"),
    "sparse": (lambda m, r: (masked(m), Digits(*r)), "a sparse or quantised tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_told_in_one_sentence_and_leaves_no_store(model, rows, name):
    make, told = WRONG[name]
    with pytest.raises(GradshardError, match=told) as caught:
        compute_signs(*make(model, rows), "signs/D.zarr")
    assert "\n" not in str(caught.value)
    assert not Path("signs/D.zarr").exists()


@pytest.mark.parametrize("name", ["normalised", "label", "late nan"])
def test_wrong_use_is_told_in_one_sentence_from_another_process_too(model, rows, name):
    make, told = WRONG[name]
    with pytest.raises(GradshardError, match=told) as caught:
        compute_signs(*make(model, rows), "signs/D.zarr", workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", [{"mean": [0.1]}, {"mean": [0.1, 0.2], "std": [1, 1]}, {"mean": [0], "std": [0]}])
def test_a_normalisation_that_is_told_by_half_is_refused(model, base, told):
    with pytest.raises(GradshardError, match="are no normalisation of 1 channel"):
        compute_signs(model, base, "signs/D.zarr", **told)


@pytest.mark.parametrize("inside", [Normalised, lambda m, mean, std, channels: nn.Sequential(Normalize(mean, std), m)])
def test_a_normalisation_is_not_told_of_a_model_that_has_one(model, base, inside):
    whole = inside(model, [0.13], [0.31], channels=1).eval()
    with pytest.raises(GradshardError, match=r"has a mean and std of its own, so mean= and std= would normalise twice"):
        compute_signs(whole, base, "signs/D.zarr", mean=[0.13], std=[0.31])
    assert not Path("signs/D.zarr").exists()


def test_a_normalisation_that_is_told_and_left_in_the_dataset_is_refused(model, rows):
    twice = Digits(*rows, lambda x: (x - 0.13) / 0.31)
    with pytest.raises(GradshardError, match=r"not in \[0, 1\]: take what normalises .* once"):
        compute_signs(model, twice, "signs/D.zarr", mean=[0.13], std=[0.31])


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"model_name": "mine!"}, "model_name 'mine!' is no name for a manifest"),
        ({"name": "a\nb"}, r"name 'a\\nb' is no name for a manifest"),
        ({"architecture": "x" * 101}, "architecture 'xxx"),
        ({"weights": "none.pt"}, "weights none.pt is no file"),
        ({"workers": -1}, "workers is -1, but must be 0 or more"),
        ({"threads": 0}, "threads is 0, but must be 1 or more, or None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_store_can_be_made_by_is_refused_before_the_dataset_is_read(model, rows, named, sentence):
    class Unread(Digits):
        def __getitem__(self, row):
            raise AssertionError("read")

    with pytest.raises(GradshardError, match=sentence):
        compute_signs(model, Unread(*rows), "signs/mine.zarr", **named)
