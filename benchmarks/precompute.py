"""Computing a sign store: model A over real digits, on all cores, beside a bare loop and beside attack libraries.

The whole of it is timed: reading images, gradients, packing, compressing, writing and the receipts, over the local Dask
cluster that `precompute` starts. The bare loop computes the same gradients by the same layers and keeps nothing, at
that one of four batch sizes which was fastest on a sixteenth of the rows. The libraries make FGSM examples of the same
images as their users do, by torch's own layers and in fp32, which is less: no labels, no exact signs, nothing stored.
The 8,192 rows make shards of 512; MNIST's 60,000 make shards of 4,096, where what a shard costs beside its rows weighs
an eighth.

What it does not show: a GPU; the start of the process and of the cluster; several processes (`scaling` does).
"""

import functools
import io
import itertools
import logging
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from distributed import Client
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.devices import awaited
from benchmarks.digits import dataset_of_digits
from benchmarks.ratios import Claim, Step, claim, ratios, seconds
from gradshard.pipeline import models
from gradshard.pipeline.config.signs import SignsParams
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import GradientSpec, to_unit_range
from gradshard.pipeline.models import tramer
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import StorePrecision
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs.models import LoadedModel, load_model
from gradshard.stages.jobs.sign_stores import WRITERS, ShardTask, compute_missing, store_spec
from gradshard.stages.machines.dask_cluster import dask_client, threads
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset import Dataset, open_dataset
from gradshard.storage.formats.sign_writer import StoreBuilder

BATCHES = (32, 64, 128, 256)
LIBRARY_BATCH = 128
PRECISIONS: tuple[StorePrecision, ...] = ("fp32", "bf16")
EPSILON = 0.3
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """A model with its weights file, the images of a dataset whose signs it gives, and the device that computes them.

    ``folder`` holds the dataset, ``data.zarr``, and the weights, ``model.safetensors``; stores are made there.
    """

    folder: Path
    architecture: str
    device: torch.device

    @classmethod
    def made(cls, folder: Path, architecture: str, device: torch.device) -> "Setting":
        """Give a model random weights, beside the dataset that is there."""
        data = open_dataset(folder / "data.zarr")
        model = models.create_model(architecture, data.sample_shape, data.classes, seed=0)
        checkpoints.save(folder / "model.safetensors", model.state_dict(), {"architecture": architecture})
        return cls(folder, architecture, device)

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / "model.safetensors"

    @functools.cached_property
    def data(self) -> Dataset:
        """The dataset."""
        return open_dataset(self.folder / "data.zarr")

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The model on the device."""
        return load_model(self.weights, self.architecture, self.data, self.device)

    @functools.cached_property
    def images(self) -> Tensor:
        """All images on the device, as pixels in [0, 1]."""
        return to_unit_range(torch.from_numpy(self.data.train.load()[0]).to(self.device))


def measure(*, quick: bool = False) -> list[Claim]:
    """Time each over all rows, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset_of_digits(folder / "data.zarr", rows=256 if quick else 8192)
        setting = Setting.made(folder, "A", _CPU)
        with dask_client(ClusterConfig(), "cpu", spare=WRITERS) as client:
            claims = [
                beside_bare(setting, precision, client, repeats=1 if quick else 15)[0] for precision in PRECISIONS
            ]
            stores = {precision: stored(setting, precision, client) for precision in PRECISIONS}
            times = seconds(stores | _libraries(setting.images), repeats=1 if quick else 5)
    return claims + _beside_libraries(times)


def beside_bare(
    setting: Setting, precision: StorePrecision, client: Client, *, repeats: int, batches: Sequence[int] = BATCHES
) -> tuple[Claim, float]:
    """Time a store in turn with a bare loop at the best of some batch sizes; gives the store's images/s too."""
    images = setting.images[: max(1, len(setting.images) // 16)]
    tried = {str(size): _bare(setting, images, size, precision) for size in batches}
    tuned = seconds(tried, repeats=min(repeats, 5))
    batch = int(min(tuned, key=lambda size: sum(tuned[size])))
    steps = {
        "store": stored(setting, precision, client),
        "bare": _bare(setting, setting.images, batch, precision),
    }
    times = seconds(steps, repeats=repeats)
    name = f"rate of a store in {precision} over that of a bare loop"
    rate = len(setting.images) / statistics.median(times["store"])
    return claim(name, ratios(times, "bare", "store"), target=0.97, at="least"), rate


def _beside_libraries(times: dict[str, list[float]]) -> list[Claim]:
    libraries = [name for name in times if name not in PRECISIONS]
    best = min(libraries, key=lambda name: sum(times[name]))
    claims = []
    for precision, target in (("fp32", 1.0), ("bf16", 2.0)):
        name = f"rate of a store in {precision} over that of the fastest library, {best}, in fp32"
        claims.append(claim(name, ratios(times, best, precision), target=target, at="least"))
    claims += [
        claim(f"rate of a store in fp32 over that of {name}", ratios(times, name, "fp32"))
        for name in libraries
        if name != best
    ]
    return claims


def stored(setting: Setting, precision: StorePrecision, client: Client) -> Step:
    """Everything that `precompute` does between the start of its cluster and publishing."""
    wanted = SignsParams(model="A", gradient="exact", label="predicted", precision=precision)
    direction, device = GradientSpec("exact", "predicted", precision), setting.device.type
    spec = store_spec(wanted, setting.loaded, setting.data.train, direction, setting.device)
    number = itertools.count()

    def step() -> None:
        builder = StoreBuilder(setting.folder / f"{precision}-{next(number)}", spec)
        builder.create()
        task = ShardTask(
            setting.folder / "data.zarr",
            setting.weights,
            device,
            direction,
            builder,
            at_once=threads(ClusterConfig(), device),
        )
        with redirect_stderr(io.StringIO()):
            compute_missing(task, "A", client)
        shutil.rmtree(builder.folder)

    return step


def _bare(setting: Setting, images: Tensor, batch: int, precision: StorePrecision) -> Step:
    """Return the gradients of images on the device and nothing else, with all cores on each batch."""

    def step() -> None:
        with _all_cores(), precision_context(precision, setting.device):
            for start in range(0, len(images), batch):
                input_gradient(setting.loaded.module, images[start : start + batch], None, policy="predicted")

    return awaited(step, setting.device)


def _libraries(images: Tensor) -> dict[str, Step]:
    """Return FGSM of three attack libraries on model A of torch's own layers in its default layout, batches of 128."""
    import foolbox
    import torchattacks
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    logging.getLogger("art").setLevel(logging.ERROR)
    shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
    model = tramer.build("A", shape, 10, seed=0).eval()
    labels = torch.zeros(len(images), dtype=torch.int64)
    classifier = PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    art = FastGradientMethod(classifier, eps=EPSILON, batch_size=LIBRARY_BATCH)
    wrapped, linf = foolbox.PyTorchModel(model, bounds=(0, 1)), foolbox.attacks.LinfFastGradientAttack()
    attack = torchattacks.FGSM(model, eps=EPSILON)
    targets = functional.one_hot(labels, 10).numpy()
    batches = [slice(start, start + LIBRARY_BATCH) for start in range(0, len(images), LIBRARY_BATCH)]
    criterion = foolbox.criteria.Misclassification

    def on_all_cores(step: Step) -> Step:
        def timed() -> None:
            with _all_cores():
                step()

        return timed

    return {
        "torchattacks": on_all_cores(lambda: [attack(images[at], labels[at]) for at in batches]),
        "foolbox": on_all_cores(
            lambda: [linf.run(wrapped, images[at], criterion(labels[at]), epsilon=EPSILON) for at in batches]
        ),
        "ART": on_all_cores(lambda: art.generate(images.numpy(), targets)),
    }


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let torch have its default threads: a worker of ours sets them to one, for shards are its parallelism."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(1)


if __name__ == "__main__":
    for found in measure():
        print(found.line())
