"""SignLoader: a loop of one's own gets the trainer's batches bit for bit, and goes on in the middle of an epoch."""

import signal
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradshard.pipeline import models
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.loading import SignLoader, perturb
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.optimizers import Optimization, make_optimizer
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.streaming.reader import open_reader, plan_reading
from tests.helpers.stores import build_store

CPU = torch.device("cpu")
SMALL = 200_000  # bytes of memory: a window is a fraction of the 700 digits


@pytest.fixture
def stores(tmp_path, small_dataset):
    return {
        name: build_store(tmp_path / f"b{name}", small_dataset, tmp_path / f"{name}.zarr", seed=seed, model=name)
        for seed, name in enumerate(("A", "C"))
    }


@pytest.fixture
def loader(small_dataset_path, stores):
    def make(**changed):
        options = {"batch": 64, "epsilon": 0.3, "seed": 3, **changed}
        return SignLoader(small_dataset_path, stores, **options)

    return make


def trainer_of(small_dataset, stores, *, memory=1 << 30, law="fixed", augmentation=None, live=True, epochs=2):
    reading = plan_reading(small_dataset.train, stores, memory=memory)
    adversary = Adversary(
        attack="fgsm",
        epsilon=0.3,
        alpha=0.0,
        clean_weight=0.5,
        sources=("self", "A", "C") if live else ("A", "C"),
        schedule="random",
        gradient="exact",
        policy="predicted",
        live_mode="train",
        directions={"A": 1, "C": 1},
        epsilon_law=law,
    )
    run = TrainingRun(
        rows=700,
        batch=64,
        epochs=epochs,
        seed=3,
        optimization=Optimization("adam", 0.001),
        reading=reading,
        adversary=adversary,
        augmentation=augmentation or Augmentation(),
    )
    model = models.create_model("D", small_dataset.sample_shape, 10, seed=3)
    return Trainer(model, run, device=CPU, arithmetic="fp32"), open_reader(small_dataset.train, stores, reading)


def same(one, other):
    for name in ("images", "labels", "signs", "epsilon", "live"):
        ours, theirs = getattr(one, name), getattr(other, name)
        equal = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        if not equal:
            return False
    return True


@pytest.mark.parametrize("memory", [1 << 30, SMALL])
@pytest.mark.parametrize("law", ["fixed", "truncated_normal"])
def test_the_batches_are_those_of_the_trainer_bit_for_bit(small_dataset, stores, loader, memory, law):
    trainer, reader = trainer_of(small_dataset, stores, memory=memory, law=law, augmentation=Augmentation(2, True))
    losses, seen = trainer._losses, []

    def noting(batch):
        seen.append(batch)
        return losses(batch)

    trainer._losses = noting
    sources = [trainer.run.source(step.number - 1) for step in trainer.steps(reader)]
    ours = loader(memory=memory, epsilon_law=law, padding=2, flip=True)
    found = [batch for _ in range(2) for batch in ours]
    assert len(found) == len(seen) == 2 * len(ours) == 22
    assert all(same(batch, theirs) for batch, theirs in zip(found, seen, strict=True))
    assert [ours.source(step) for step in range(22)] == sources
    assert [batch.signs is None for batch in found] == [source == "self" for source in sources]
    assert 0 < sources.count("self") < 22


def test_a_loop_of_gradshards_parts_ends_with_the_trainers_weights(small_dataset, stores, loader):
    trainer, reader = trainer_of(small_dataset, stores)
    for _ in trainer.steps(reader):
        pass
    model = models.create_model("D", small_dataset.sample_shape, 10, seed=3).train()
    losses = BatchLoss(model, trainer.method, arithmetic="fp32")
    optimizer = make_optimizer(Optimization("adam", 0.001), model)
    ours = loader()
    for _ in range(2):
        for step, batch in enumerate(ours, start=ours.step):
            torch.manual_seed(ours.torch_seed(step))
            losses(batch).total.backward()
            optimizer.step(0.001)
    assert all(torch.equal(part, model.state_dict()[name]) for name, part in trainer.model.state_dict().items())


def test_a_loop_of_plain_pytorch_ends_with_the_trainers_weights(small_dataset, stores, loader):
    trainer, reader = trainer_of(small_dataset, stores, live=False)
    for _ in trainer.steps(reader):
        pass
    model = models.create_model("D", small_dataset.sample_shape, 10, seed=3).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    ours = loader(live=False)
    for _ in range(2):
        for step, batch in enumerate(ours, start=ours.step):
            torch.manual_seed(ours.torch_seed(step))
            adversarial = perturb(batch.images, batch.signs, batch.epsilon)
            clean, attacked = model(torch.cat([batch.images, adversarial])).chunk(2)
            loss = 0.5 * functional.cross_entropy(clean, batch.labels)
            loss = loss + 0.5 * functional.cross_entropy(attacked, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert all(torch.equal(part, model.state_dict()[name]) for name, part in trainer.model.state_dict().items())


@pytest.mark.parametrize("memory", [1 << 30, SMALL])
@pytest.mark.parametrize("stop", [0, 4, 11, 15])
def test_resumed_in_the_middle_of_an_epoch_it_gives_the_same_rest(loader, memory, stop):
    whole = loader(memory=memory)
    batches = [batch for _ in range(3) for batch in whole]
    first, second = loader(memory=memory), loader(memory=memory)
    for _ in range(stop // 11):
        list(first)
    list(islice(first, stop % 11))
    state = first.state_dict()
    assert state["step"] == stop
    second.load_state_dict(state)
    assert second.epoch == stop // 11
    rest = [batch for _ in range(3 - stop // 11) for batch in second]
    assert len(rest) == 33 - stop
    assert all(same(batch, theirs) for batch, theirs in zip(rest, batches[stop:], strict=True))


def test_a_state_goes_back_too(loader):
    ours = loader()
    state, first = ours.state_dict(), list(ours)
    ours.load_state_dict(state)
    assert all(same(one, other) for one, other in zip(list(ours), first, strict=True))


class Interrupted:
    """A reader in the midst of which Ctrl-C is pressed, once."""

    def __init__(self, reader):
        self.reader, self.pressed = reader, False

    def read(self, requests):
        for raw in self.reader.read(requests):
            if not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)
            yield raw


@pytest.fixture
def _ctrl_c_is_heard():
    """A process that was started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
@pytest.mark.parametrize("memory", [1 << 30, SMALL])
def test_a_loop_that_ctrl_c_ended_goes_on_at_the_same_batch(loader, memory):
    ours, other = loader(memory=memory), loader(memory=memory)
    undisturbed = [batch for _ in range(2) for batch in other]
    found = list(islice(ours, 3))
    ours.close()
    ours._reader = Interrupted(ours._reader)
    with pytest.raises(KeyboardInterrupt):
        list(ours)
    assert ours.step == 3
    found += [batch for _ in range(2) for batch in ours]
    assert all(same(one, theirs) for one, theirs in zip(found, undisturbed, strict=True))


def test_a_loop_that_a_missing_shard_ended_goes_on_once_it_is_put_back(loader, tmp_path):
    ours, other = loader(memory=SMALL), loader(memory=SMALL)
    undisturbed = [batch for _ in range(2) for batch in other]
    shards = tmp_path / "A.zarr" / "signs" / "c"
    found = list(islice(ours, 3))
    shards.rename(tmp_path / "away")
    with pytest.raises(GradshardError, match="is missing"):
        found.extend(ours)
    with pytest.raises(GradshardError, match="is missing"):
        list(ours)
    assert 3 <= len(found) == ours.step < 11
    (tmp_path / "away").rename(shards)
    found += [batch for _ in range(2) for batch in ours]
    assert all(same(one, theirs) for one, theirs in zip(found, undisturbed, strict=True))


def rows_of(batches):
    return [
        (image.numpy().tobytes(), int(label)) for b in batches for image, label in zip(b.images, b.labels, strict=True)
    ]


@pytest.mark.parametrize("memory", [1 << 30, SMALL])
@pytest.mark.parametrize("later", [1, 3])
def test_ranks_share_each_batch_and_a_state_serves_any_number_of_them(loader, memory, later):
    alone = list(loader(memory=memory))
    parts = [loader(memory=memory, rank=rank, ranks=2) for rank in range(2)]
    for rank in parts:
        list(islice(rank, 3))
    state = parts[0].state_dict()
    assert state == parts[1].state_dict()
    shared = [list(rank) for rank in parts]
    for batch, one, other in zip(alone[3:], *shared, strict=True):
        assert rows_of([batch]) == rows_of([one, other])
    others = [loader(memory=memory, rank=rank, ranks=later) for rank in range(later)]
    for rank in others:
        rank.load_state_dict(state)
    for batch, *found in zip(alone[3:], *others, strict=True):
        assert rows_of([batch]) == rows_of(found)


def test_an_epoch_holds_each_row_once(loader, small_dataset):
    images, labels = small_dataset.train.load()
    expected = sorted(
        ((image / np.float32(255)).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )
    for memory in (1 << 30, SMALL):
        assert sorted(rows_of(loader(memory=memory))) == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 4}, "another seed"),
        ({"batch": 32}, "another batch"),
        ({"schedule": "rotate"}, "another schedule"),
        ({"live": False}, "another sources"),
        ({"memory": SMALL}, "another reading"),
        ({"flip": True}, "another augmentation"),
        ({"epsilon": 0.1}, "another epsilon"),
    ],
    ids=lambda value: str(value),
)
def test_the_state_of_another_order_is_refused(loader, change, told):
    with pytest.raises(GradshardError, match=told):
        loader().load_state_dict(loader(**change).state_dict())


def test_a_store_of_another_dataset_is_refused(tmp_path, stores, digits):
    part = tuple(part[100:200] for part in digits["train"])
    assert sum(write_dataset(tmp_path / "d.zarr", name="d", classes=10, splits={"train": part, "test": part})) == 200
    with pytest.raises(GradshardError, match="was built for 700 rows of digits"):
        SignLoader(tmp_path / "d.zarr", stores, batch=10, epsilon=0.3)


def test_what_has_no_source_or_too_many_ranks_is_refused(small_dataset_path, loader):
    with pytest.raises(GradshardError, match="there is no source: name a store, or leave live=False out"):
        SignLoader(small_dataset_path, {}, batch=64, epsilon=0.3, live=False)
    with pytest.raises(GradshardError, match="ranks cannot share a batch"):
        loader(rank=0, ranks=65)
    with pytest.raises(GradshardError, match="schedule all is none of a loader's"):
        loader(schedule="all")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"batch": 0}, "batch is 0: give how many rows"),
        ({"epsilon": 8}, "epsilon is 8, no distance of pixels"),
        ({"epsilon": float("nan")}, "epsilon is nan, no distance of pixels"),
        ({"epsilon_law": "uniform"}, "epsilon_law is uniform: give fixed or truncated_normal"),
        ({"rank": 2, "ranks": 2}, "rank is 2 of 2 ranks: give one from 0 to 1"),
    ],
)
def test_a_loader_of_empty_batches_or_of_no_epsilon_is_refused(loader, wrong, told):
    with pytest.raises(GradshardError, match=told):
        loader(**wrong)


def test_an_open_dataset_is_as_good_as_its_path(small_dataset, small_dataset_path, stores):
    places = small_dataset, small_dataset_path
    first = [next(iter(SignLoader(data, stores, batch=64, epsilon=0.3, live=False))) for data in places]
    assert torch.equal(first[0].images, first[1].images)
    assert torch.equal(first[0].perturbed(), first[1].perturbed())
