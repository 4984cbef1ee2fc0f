"""The paper's ImageNet models: built, trained for some steps, crafted from, and held against plain PyTorch."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import zarr
from safetensors.torch import load_file, save_file

from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.manifest import read_manifest
from tests.helpers.imagefolders import write_folder
from tests.helpers.projects import Project, new_project

pytestmark = pytest.mark.slow

# timm alone pools otherwise than TensorFlow in Inception v3, for which the weights of a tag tf_ are.
FOUR = ["inception_v3.gluon_in1k", "inception_v4", "inception_resnet_v2.tf_ens_adv_in1k", "resnetv2_50"]


def use(project: Project, name: str, *, epochs: int, **dataset: object) -> None:
    """Model A is timm's, its store holds signs towards the least likely class."""

    def change(params: dict) -> None:
        params["dataset"] = {"name": "imagefolder", **dataset}
        params["static"]["A"] = {"architecture": f"timm:{name}", "epochs": epochs, "seed": 3, "weights": "random"}
        params["signs"]["A"]["label"] = "least_likely"
        params["training"]["batch"] = 4
        params["training"]["precision"] = "fp32"

    project.edit(change)


@dataclass(frozen=True)
class Plain:
    """The model by timm and PyTorch alone, from the files that the stages wrote."""

    project: Project
    name: str

    def gradients(self, rows: range, *, batch: int, dtype: torch.dtype, memory_format: torch.memory_format):
        """The gradient of the margin for the least likely class, (n, C·H·W), and those classes, (n,)."""
        root = zarr.open_group(self.project.path / "data/imagefolder.zarr", mode="r")
        tensors = load_file(self.project.path / "models/static/A.safetensors")
        model = timm.create_model(self.name, num_classes=root.attrs["classes"])
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        model.eval().to(dtype=dtype, memory_format=memory_format)
        config = timm.get_pretrained_cfg(self.name)
        mean, std = (torch.tensor(values, dtype=dtype).reshape(1, 3, 1, 1) for values in (config.mean, config.std))
        gradients, labels = [], []
        for start in range(rows.start, rows.stop, batch):
            pixels = torch.from_numpy(root["train/images"][start : min(start + batch, rows.stop)]).to(dtype) / 255
            pixels.requires_grad_(True)
            logits = model((pixels - mean) / std)
            least = logits.argmin(1)
            margins = [
                row[torch.arange(len(row)) != k].logsumexp(0) - row[k] for row, k in zip(logits, least, strict=True)
            ]
            (gradient,) = torch.autograd.grad(torch.stack(margins).sum(), pixels)
            gradients.append(gradient.flatten(1))
            labels.append(least)
        return torch.cat(gradients).numpy(), torch.cat(labels).numpy()


def stored_signs(project: Project, rows: range) -> tuple[np.ndarray, np.ndarray]:
    """What the store's card says: how to read it with zarr and NumPy."""
    group = zarr.open_group(project.path / "signs/A.zarr", mode="r")
    pixels = int(np.prod(group.attrs["sample_shape"]))
    planes = group["signs"][rows.start : rows.stop]
    bits = np.unpackbits(planes, axis=-1, count=pixels).view(np.int8)
    return 2 * bits[:, 0] + bits[:, 1] - 1, group["labels"][rows.start : rows.stop]


def check_store(project: Project, name: str, rows: range) -> None:
    direction = read_manifest(project.path / "signs/A.zarr").direction
    assert (direction.label, direction.step, direction.mode) == ("least_likely", -1, "eval")
    found, chosen = stored_signs(project, rows)
    plain = Plain(project, name)
    # Models this deep have so many kinks (ReLU, max-pooling) that rounding, which follows from the order of summation,
    # turns some signs; they are those of small gradients.
    torch.set_num_threads(1)
    gradients, labels = plain.gradients(rows, batch=4, dtype=torch.float32, memory_format=torch.channels_last)
    assert np.array_equal(chosen, labels)
    assert (found != np.sign(gradients)).mean() <= 0.005
    assert (found * gradients).sum() > 0.999 * np.abs(gradients).sum()
    # Signs that agree by being all alike would say nothing.
    assert 0.3 < (found > 0).mean() < 0.7
    some = range(rows.start, rows.start + 4)
    exact, labels = plain.gradients(some, batch=1, dtype=torch.float64, memory_format=torch.contiguous_format)
    assert np.array_equal(chosen[:4], labels)
    assert ((found[:4] == np.sign(exact)).mean(1) > 0.97).all()
    assert ((found[:4] * exact).sum(1) > 0.99 * np.abs(exact).sum(1)).all()


@pytest.mark.parametrize("name", FOUR)
def test_a_trained_model_gives_the_signs_that_plain_pytorch_gives(tmp_path, digits, gradshard, name):
    project = new_project(tmp_path / "project", digits)
    write_folder(project.path / "images", digits, train=12, test=10, size=90)
    use(project, name, epochs=1, path="images", size=75)
    for stage in (["prepare"], ["train-static", "A"], ["precompute", "A"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
    tensors = load_file(project.path / "models/static/A.safetensors")
    steps = [tensor for key, tensor in tensors.items() if key.endswith("num_batches_tracked")]
    assert steps
    assert all(count == 3 for count in steps)
    check_store(project, name, range(12))


@pytest.mark.parametrize("name", FOUR)
def test_real_photographs_of_299_pixels_give_the_signs_that_plain_pytorch_gives(
    tmp_path, digits, gradshard, imagenet_sample, name
):
    project = new_project(tmp_path / "project", digits)
    # The 20 photographs of val serve as both splits: the whole sample takes minutes for each model.
    use(project, name, epochs=0, path=str(imagenet_sample), size=299, train="val", test="val")
    for stage in (["prepare"], ["train-static", "A"], ["precompute", "A"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
    assert open_dataset(project.path / "data/imagefolder.zarr").sample_shape == (3, 299, 299)
    check_store(project, name, range(20))


# Of the paper's tables 3 and 5, each with the architecture that its weights have in timm; in pairs, so that each model
# is attacked by another one and attacks it.
PAIRS = [
    {"v3": "inception_v3.tf_in1k", "v4": "inception_v4.tf_in1k"},
    {"IncRes_v2": "inception_resnet_v2.tf_in1k", "ResNet_v2": "resnetv2_50.a1h_in1k"},
    {"v3_adv": "inception_v3.tf_adv_in1k", "v3_adv-ens3": "inception_v3.tf_adv_in1k"},
    {"v3_adv-ens4": "inception_v3.tf_adv_in1k", "IncRes_v2_adv-ens": "inception_resnet_v2.tf_ens_adv_in1k"},
]
IMAGES, CLASSES, ATTACKED = 4, 3, 2


def write_weights(path: Path, name: str, *, seed: int) -> dict[str, torch.Tensor]:
    """Write a file of weights by timm alone, random ones."""
    torch.manual_seed(seed)
    tensors = timm.create_model(name, num_classes=CLASSES).state_dict()
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_each_of_the_papers_models_takes_a_file_of_weights_and_is_attacked_at_299_pixels(
    tmp_path, digits, gradshard, pair
):
    project = new_project(tmp_path / "project", digits)
    write_folder(project.path / "images", digits, train=0, test=IMAGES, size=299)
    written = {
        name: write_weights(project.path / f"weights/{name}.safetensors", architecture, seed=seed)
        for seed, (name, architecture) in enumerate(pair.items())
    }

    def change(params: dict) -> None:
        params["dataset"] = {"name": "imagefolder", "path": "images", "size": 299, "train": None}
        params["static"] = {
            name: {"architecture": f"timm:{architecture}", "epochs": 0, "weights": f"weights/{name}.safetensors"}
            for name, architecture in pair.items()
        }
        params["signs"], params["robust"] = {}, {}
        params["attack"]["eps"] = "16/256"
        params["evaluation"] = {"holdout": list(pair)[1], "targets": list(pair), "attacks": {"fgsm": list(pair)}}
        params["evaluation"] |= {"label": "least_likely", "top": [1, 2], "sample": ATTACKED, "gradients": ["exact"]}
        params["evaluation"] |= {"illustrated": [], "diagnosed": [], "sweep": [0, 1]}
        params["analysis"] |= {"models": [], "plane": None}
        params["blackbox"] |= {"targets": [], "forest": None}

    project.edit(change)
    for stage in (["prepare"], *(["train-static", name] for name in pair), ["evaluate"]):
        code, said = gradshard(project, *stage)
        assert code == 0, said
    for name, tensors in written.items():
        loaded = load_file(project.path / f"models/static/{name}.safetensors")
        assert all(torch.equal(loaded[f"model.{key}"], tensor) for key, tensor in tensors.items())
    rows = pq.read_table(project.path / "evaluation/10/matrix.parquet").to_pylist()
    crossed = {(row["source"], row["target"], row["top"]): row for row in rows if row["attack"] == "fgsm"}
    assert set(crossed) == set(itertools.product(pair, pair, (1, 2)))
    assert {row["label"] for row in crossed.values()} == {"least_likely"}
    for (source, target, _), row in crossed.items():
        # A model's own examples are made of all images, others' of the sample.
        assert row["n"] == (IMAGES if source == target else ATTACKED)
        assert row["errors"] >= crossed[source, target, 2]["errors"]
