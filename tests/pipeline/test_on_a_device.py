"""A GPU computes what a CPU does, as far as rounding goes; without a GPU these run on the CPU."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.device_memory import limit_memory
from gradshard.pipeline.gradients.microbatches import fit, rows_at_once
from gradshard.pipeline.gradients.pack import pack_signs
from gradshard.pipeline.gradients.signs import GradientSpec, agreement_with_float64, compute_signs, to_unit_range
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.pipeline.loading import SignLoader
from gradshard.pipeline.models.dropout import Dropout, rows_of
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.methods.registry import METHODS
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.formats import bitplanes
from gradshard.storage.streaming.reader import Reader, open_reader, plan_reading
from tests.helpers.adversaries import adversary_of
from tests.helpers.stores import build_store, random_signs
from tests.helpers.trained import train_on

pytestmark = pytest.mark.device

CPU = torch.device("cpu")
SHAPE = (1, 28, 28)
EPSILON = 0.3
EXACT = GradientSpec("exact", "predicted")


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    """A small model of the digits, on the CPU."""
    return train_on(digits, "D", seed=1, epochs=2)


@pytest.fixture
def rows(digits) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits that no training saw, uint8, and their labels, int64."""
    images, labels = (torch.from_numpy(part[:500]) for part in digits["test"])
    return images, labels.long()


def on(device: torch.device, model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(device)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 9, 7)], ids=["whole bytes", "with padding"])
def test_signs_become_the_same_bytes_and_bytes_the_same_signs(device, shape):
    pixels = int(np.prod(shape[1:]))
    signs = random_signs(shape[0], pixels, seed=0)
    there = torch.from_numpy(signs).view(shape).to(device)
    planes = pack_signs(there)
    assert planes.device.type == device.type
    assert np.array_equal(planes.cpu().numpy(), bitplanes.pack(signs))
    assert torch.equal(unpack_signs(planes, there.shape, scale=EPSILON), EPSILON * there.float())


@pytest.mark.slow
def test_compiled_unpacking_gives_the_same_signs(device):
    signs = torch.from_numpy(random_signs(4, 784, seed=0)).view(4, *SHAPE).to(device)
    unpack = torch.compile(unpack_signs)
    assert torch.equal(unpack(pack_signs(signs), signs.shape, scale=EPSILON), EPSILON * signs.float())


@pytest.mark.parametrize("rate", [0.5, 0.3], ids=["a byte a unit", "two bytes"])
def test_dropout_of_some_rows_is_that_of_the_whole_batch(device, rate):
    layer, values, some = Dropout(rate).train(), torch.ones(6, 40, device=device), torch.tensor([1, 4])
    dropped = []
    for rows in (torch.arange(6), some):
        torch.manual_seed(0)
        with rows_of(6, rows):
            dropped.append(layer(values[rows.to(device)]))
    assert torch.equal(dropped[0][some.to(device)], dropped[1])
    assert 0 < (dropped[0] == 0).double().mean() < 1


def test_views_of_images_are_those_of_the_cpu(device, rows):
    views = Augmentation(padding=3, flip=True).draw(len(rows[0]), seed=1, step=2)
    assert torch.equal(views.apply(rows[0].to(device)).cpu(), views.apply(rows[0]))


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.95)])
def test_stored_signs_are_those_of_float64(device, trained, rows, precision, least):
    images, labels = (part.to(device) for part in rows)
    share = agreement_with_float64(on(device, trained), images, labels, GradientSpec("exact", "predicted", precision))
    assert least < share <= 1


def test_stored_signs_are_those_of_the_cpu(device, trained, rows):
    images, labels = rows
    expected, _ = compute_signs(trained, images, labels, EXACT)
    found, _ = compute_signs(on(device, trained), images.to(device), labels.to(device), EXACT)
    assert (found != expected).double().mean() <= 1e-4


@pytest.mark.parametrize("attack", sorted(set(ATTACKS) - {"autoattack"}))
def test_an_attack_errs_within_epsilon_as_often_as_on_the_cpu(device, trained, rows, attack):
    images, labels = to_unit_range(rows[0][:200]), rows[1][:200]
    strength = AttackConfig(epsilon=EPSILON, alpha=0.05, steps=5, pgd_steps=5)
    draws = sample_noise(images.shape, 1, generator=torch.Generator().manual_seed(0))
    errors = []
    for place in (CPU, device):
        model = on(place, trained)
        crafted = craft_by_name(
            attack, model, images.to(place), labels.to(place), strength=strength, draws=draws.to(place)
        )
        assert crafted.device.type == place.type
        assert (crafted.cpu() - images).abs().max() <= EPSILON + 1e-6
        errors.append((model(crafted).argmax(1).cpu() != labels).double().mean().item())
    assert errors[1] == pytest.approx(errors[0], abs=0.02)
    assert errors[1] > 0.2


class TestTraining:
    """Steps on the device."""

    @pytest.fixture
    def trainer_on(self, tmp_path, small_dataset) -> Callable[..., tuple[Trainer, Reader]]:
        """Make a trainer and its reader; without dropout no device draws anything of its own."""
        store = build_store(tmp_path / "building", small_dataset, tmp_path / "A.zarr")

        def make(place, *, method="ensemble", optimization=None, arithmetic="fp32", epochs=1, dropout=False, **options):
            adversary = adversary_of(method, epsilon=EPSILON)
            if method == "ensemble":
                adversary = replace(adversary, sources=("self", "A"), directions={"A": 1}, schedule="rotate")
            stores = {"A": store} if method == "ensemble" else {}
            reading = plan_reading(small_dataset.train, stores, memory=1 << 30)
            run = TrainingRun(
                rows=700,
                batch=64,
                epochs=epochs,
                seed=3,
                optimization=optimization or Optimization("adam", 0.001),
                reading=reading,
                adversary=adversary,
                sample_shape=small_dataset.sample_shape,
                **options,
            )
            model = models.create_model("D", SHAPE, 10, seed=3)
            for module in model.modules():
                if isinstance(module, nn.Dropout) and not dropout:
                    module.p = 0.0
            trainer = Trainer(model, run, device=place, arithmetic=arithmetic)
            return trainer, open_reader(small_dataset.train, stores, reading)

        return make

    @staticmethod
    def losses(trainer: Trainer, reader: Reader) -> list[float]:
        """Each record's losses, clean and adversarial, as far as there are such."""
        records = [step.record for step in trainer.steps(reader) if step.record]
        return [x for record in records for x in (record.clean_loss, record.adversarial_loss) if x is not None]

    @pytest.mark.parametrize(
        "optimization",
        [
            Optimization("adam", 0.001, weight_decay=1e-4, clip_norm=1.0),
            Optimization("sgd", 0.01, momentum=0.9, nesterov=True),
            Optimization("rmsprop", 0.001, momentum=0.9),
        ],
        ids=lambda chosen: chosen.optimizer,
    )
    def test_an_optimiser_takes_the_steps_of_the_cpu(self, device, trainer_on, optimization):
        augmentation = Augmentation(padding=2, flip=True)
        expected, found = (
            self.losses(*trainer_on(place, optimization=optimization, average=0.9, augmentation=augmentation))
            for place in (CPU, device)
        )
        assert found == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_method_takes_steps(self, device, trainer_on, method):
        replays = 2 if method == "free_at" else 1
        trainer, reader = trainer_on(device, method=method, epochs=replays, replays=replays, dropout=True)
        losses = self.losses(trainer, reader)
        assert losses
        assert np.isfinite(losses).all()
        assert next(trainer.model.parameters()).device.type == device.type

    def test_a_run_goes_on_from_its_state(self, device, trainer_on):
        whole = self.losses(*trainer_on(device, epochs=2))
        trainer, reader = trainer_on(device, epochs=2)
        begun = [step.record for _, step in zip(range(11), trainer.steps(reader), strict=False) if step.record]
        state = {name: tensor.cpu() for name, tensor in trainer.state().items()}
        again, reader = trainer_on(device, epochs=2)
        again.load_state(state)
        assert len(begun) == 1
        assert self.losses(again, reader) == pytest.approx(whole[2:], rel=1e-3)

    @pytest.mark.parametrize("arithmetic", ["bf16", "tf32"])
    def test_a_short_arithmetic_trains(self, device, trainer_on, arithmetic):
        if arithmetic == "tf32" and device.type != "cuda":
            pytest.skip("tf32 needs an NVIDIA GPU")
        expected, found = (self.losses(*trainer_on(device, arithmetic=each)) for each in ("fp32", arithmetic))
        assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("memory", [1 << 30, 200_000], ids=["resident", "in windows"])
def test_a_loader_gives_the_cpus_batches(device, tmp_path, small_dataset, small_dataset_path, memory):
    build_store(tmp_path / "building", small_dataset, tmp_path / "A.zarr")
    stores = {"A": str(tmp_path / "A.zarr")}
    options = {"batch": 64, "epsilon": EPSILON, "epsilon_law": "truncated_normal", "live": False, "memory": memory}
    batches = [list(SignLoader(small_dataset_path, stores, **options, device=place)) for place in (CPU, device)]
    for expected, found in zip(*batches, strict=True):
        assert found.images.device.type == device.type
        assert torch.equal(found.perturbed().cpu(), expected.perturbed())


@pytest.fixture
def gpu(device):
    if device.type != "cuda":
        pytest.skip("there is no NVIDIA GPU")
    yield device
    limit_memory(None)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_the_images_that_pass_at_once_take_no_more_than_their_room(gpu):
    model = models.create_model("A", SHAPE, 10, seed=0).to(gpu).eval().requires_grad_(False)
    limit_memory(1 << 28)
    found = fit(model, SHAPE, gpu)
    images = torch.zeros(found.rows, *SHAPE, dtype=torch.uint8, device=gpu)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compute_signs(model, images, torch.zeros(found.rows, dtype=torch.int64, device=gpu), EXACT)
    # What kernels take for themselves is not counted; a GPU's default share leaves as much again for it.
    assert torch.cuda.max_memory_allocated() - before <= 2 * found.room
    assert 1 < found.rows < 1024


def test_a_gpu_without_room_takes_fewer_images_and_goes_on(gpu, trained, rows):
    images, labels = rows[0].repeat(2, 1, 1, 1).to(gpu), rows[1].repeat(2).to(gpu)
    expected, _ = compute_signs(on(gpu, trained), images, labels, EXACT)
    model = on(gpu, models.create_model("A", SHAPE, 10, seed=0).eval().requires_grad_(False))
    whole = rows_at_once(SHAPE, gpu, model)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + whole * fit(model, SHAPE, gpu).image // 4
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(gpu).total_memory)
    signs, _ = compute_signs(model, images, labels, EXACT)
    assert signs.shape == expected.shape
    assert rows_at_once(SHAPE, gpu, model) < whole
