"""Training: what a step sees, what a live pass costs, and that a run resumed is the run undisturbed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gradshard.pipeline import models
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import attack_loss
from gradshard.pipeline.gradients.random_step import RandomStep, step_along
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs, to_unit_range
from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.models.precision import choose_compilation
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import StoredBatch, make_batch
from gradshard.pipeline.training.methods import ensemble
from gradshard.pipeline.training.methods.ensemble import Ensemble
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import RECORD_STEPS, Trainer
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.streaming.reader import open_reader, plan_reading
from tests.helpers.stores import build_store, rand_fgsm_record

CPU = torch.device("cpu")


def adversary(**changed):
    values = {
        "attack": "fgsm",
        "epsilon": 0.3,
        "alpha": 0.05,
        "clean_weight": 0.5,
        "sources": ("self", "A", "C"),
        "schedule": "random",
        "gradient": "exact",
        "policy": "predicted",
        "live_mode": "train",
        "directions": {"A": 1, "C": 1},
    }
    return Adversary(**(values | changed))


@pytest.fixture
def stores(tmp_path, small_dataset):
    """A and C of gradients, and R of RAND+FGSM in three copies."""
    kinds = {"A": None, "C": None, "R": rand_fgsm_record()}
    return {
        name: build_store(
            tmp_path / f"b{name}", small_dataset, tmp_path / f"{name}.zarr", seed=seed, model=name, attack=attack
        )
        for seed, (name, attack) in enumerate(kinds.items())
    }


STEPS = tuple(RandomStep(0.05, seed=4, copy=copy) for copy in range(3))


def with_random_steps(**changed):
    return adversary(directions={"A": 1, "C": 1, "R": 1}, random_steps={"R": STEPS}, **changed)


@pytest.fixture
def start(small_dataset, stores):
    """Make a trainer of the small model D and its reader."""

    def make(
        *,
        robust=None,
        arithmetic="fp32",
        epochs=2,
        seed=3,
        learning_rate=0.001,
        memory=1 << 30,
        batch=64,
        augment=None,
        average=None,
        replays=1,
    ):
        used = stores if robust and robust.stores else {}
        reading = plan_reading(small_dataset.train, used, memory=memory)
        run = TrainingRun(
            rows=700,
            batch=batch,
            epochs=epochs,
            seed=seed,
            optimization=Optimization("adam", learning_rate),
            reading=reading,
            adversary=robust,
            augmentation=augment or Augmentation(),
            average=average,
            sample_shape=small_dataset.sample_shape,
            replays=replays,
        )
        model = models.create_model("D", small_dataset.sample_shape, 10, seed=seed)
        trainer = Trainer(model, run, device=CPU, arithmetic=arithmetic)
        return trainer, open_reader(small_dataset.train, used, reading)

    return make


def stored(images, labels, planes):
    return StoredBatch(np.arange(len(images)), *map(torch.from_numpy, (images, labels, planes)))


def without_dropout(trainer):
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def parameters(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "robust",
    [
        None,
        adversary(),
        adversary(schedule="loss_weighted", weights={"A": 2.0}),
        adversary(schedule="top_k", top_k=2),
        with_random_steps(sources=("self", "R")),
    ],
    ids=["clean", "robust", "loss_weighted", "top_k", "copies of random steps"],
)
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bytes(start, robust, arithmetic):
    whole, reader = start(robust=robust, arithmetic=arithmetic)
    states = {}
    for step in whole.steps(reader):
        if step.record:
            states[step.number] = {name: tensor.clone() for name, tensor in whole.state().items()}
    assert sorted(states) == [11, 22]
    resumed, reader = start(robust=robust, arithmetic=arithmetic)
    torch.manual_seed(99)
    resumed.load_state(states[11])
    assert resumed.step == 11
    assert [step.number for step in resumed.steps(reader)] == list(range(12, 23))
    assert equal(parameters(whole), parameters(resumed))
    assert resumed.live_steps == whole.live_steps


def test_an_average_is_resumed_to_the_same_bytes_and_changes_no_step(start):
    plain, reader = start(robust=adversary())
    list(plain.steps(reader))
    whole, reader = start(robust=adversary(), average=0.9)
    states = {step.number: {n: t.clone() for n, t in whole.state().items()} for step in whole.steps(reader)}
    resumed, reader = start(robust=adversary(), average=0.9)
    resumed.load_state(states[11])
    list(resumed.steps(reader))
    assert plain.result is plain.model
    assert equal(parameters(plain), parameters(whole))
    average = dict(whole.result.named_parameters())
    assert equal(average, dict(resumed.result.named_parameters()))
    assert not equal(average, parameters(whole))


@pytest.mark.parametrize("method", ["fast_at", "n_fgsm", "free_at", "pgd_at", "trades"])
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_a_resumed_run_of_every_method_ends_with_the_same_bytes(start, method, arithmetic):
    """Free-AT goes on in the middle of a batch's replays, with the perturbation that it carries."""
    settings = {"steps": 2} if method in ("pgd_at", "trades") else {}
    robust = adversary(sources=("self",), method=method, settings=settings)
    run = {"robust": robust, "arithmetic": arithmetic, "batch": 128, "epochs": 2}
    run |= {"replays": 4, "epochs": 4} if method == "free_at" else {}
    whole, reader = start(**run)
    for step in whole.steps(reader):
        if step.number == 6:
            state = {name: tensor.clone() for name, tensor in whole.state().items()}
    resumed, reader = start(**run)
    torch.manual_seed(99)
    resumed.load_state(state)
    assert [step.number for step in resumed.steps(reader)] == list(range(7, whole.step + 1))
    assert equal(parameters(whole), parameters(resumed))
    assert resumed.passes == whole.passes > (0, 0)


def test_replays_read_each_batch_once_and_train_on_it_so_many_steps(start):
    robust = adversary(sources=("self",), method="free_at")
    trainer, reader = start(robust=robust, replays=4, epochs=4)
    batches, requested = [], trainer.run.requests(0)
    assert len(list(requested)) == 11
    losses = trainer._losses

    def noting(batch):
        batches.append(batch.images.clone())
        return losses(batch)

    trainer._losses = noting
    assert len(list(trainer.steps(reader))) == len(batches) == 44
    for first in range(0, 44, 4):
        assert all(torch.equal(batches[first], batches[first + replay]) for replay in range(4))
    assert [len(images) for images in batches[::4]] == [64] * 10 + [60]
    assert trainer.passes == (4 * 700, 4 * 700)


def test_an_auxiliary_classifier_is_resumed_to_the_same_bytes_and_is_not_published(start):
    def make():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 4, 6, stride=3)
        model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
        head = AuxiliaryHead("1", torch.Size((4, 8, 8)), 10, weight=0.4)
        (given, reader), chosen = start(), Optimization("sgd", 0.05, momentum=0.9, weight_decay=1e-4)
        run = replace(given.run, optimization=chosen, average=0.9, smoothing=0.1)
        return Trainer(model, run, device=CPU, arithmetic="fp32", auxiliary=head), reader, head

    whole, reader, head = make()
    before = head.state_dict()["_layers.1.weight"].clone()
    states = {step.number: {n: t.clone() for n, t in whole.state().items()} for step in whole.steps(reader)}
    resumed, reader, _ = make()
    resumed.load_state(states[11])
    list(resumed.steps(reader))
    assert equal(whole.state(), resumed.state())
    assert not torch.equal(head.state_dict()["_layers.1.weight"], before)
    assert whole.result.state_dict().keys() == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_the_seed_decides_everything(start):
    results = []
    for seed in (3, 3, 4):
        trainer, reader = start(robust=adversary(), seed=seed, epochs=1)
        list(trainer.steps(reader))
        results.append(parameters(trainer))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


@pytest.mark.parametrize("memory", [200_000, 1 << 30], ids=["windowed", "resident"])
def test_training_goes_on_alike_however_the_rows_are_read(start, memory):
    trainer, reader = start(robust=adversary(), memory=memory, epochs=1)
    numbers = [step.number for step in trainer.steps(reader)]
    assert numbers == list(range(1, 12))
    assert trainer.run.reading.resident == (memory > 10**6)


def test_each_epoch_visits_every_row_once(start):
    trainer, _ = start(robust=adversary())
    requests = list(trainer.run.requests(0))
    assert len(requests) == 22
    for epoch in (requests[:11], requests[11:]):
        rows = np.concatenate([request.rows for request in epoch])
        assert np.array_equal(np.sort(rows), np.arange(700))


def test_requests_from_a_step_on_are_the_rest_of_all_requests(start):
    trainer, _ = start(robust=adversary())
    everything, rest = list(trainer.run.requests(0)), list(trainer.run.requests(15))
    assert len(rest) == 7
    for one, other in zip(everything[15:], rest, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert one.store == other.store


def test_live_passes_are_made_on_the_batches_of_self_and_no_others(start, monkeypatch):
    calls, shared = [], Ensemble._clean_loss_and_perturbed

    def counted(*args):
        calls.append(1)
        return shared(*args)

    monkeypatch.setattr(Ensemble, "_clean_loss_and_perturbed", counted)
    trainer, reader = start(robust=adversary(schedule="rotate"), epochs=3)
    live = [step.live for step in trainer.steps(reader)]
    assert live == [number % 3 == 0 for number in range(33)]
    assert len(calls) == trainer.live_steps == 11


def test_a_stored_batch_is_the_batch_crafted_live_from_that_static_model(tmp_path, small_dataset):
    """With the real signs of a static model, the store and the model itself give one and the same perturbation."""
    static = models.create_model("B", small_dataset.sample_shape, 10, seed=1).eval()
    images, labels = small_dataset.train.load()
    signs, _ = compute_signs(
        static, torch.from_numpy(images), torch.from_numpy(labels), GradientSpec("exact", "predicted")
    )
    rows = np.random.default_rng(0).permutation(700)[:64]
    grad, _ = input_gradient(static, to_unit_range(torch.from_numpy(images[rows])), None, policy="predicted")
    reading = plan_reading(small_dataset.train, {}, memory=1 << 30)
    run = TrainingRun(700, 64, 1, 0, Optimization("adam", 0.001), reading, adversary())
    step = next(step for step in range(10) if run.source(step) == "A")
    raw = stored(images[rows], labels[rows], bitplanes.pack(signs.numpy())[rows])
    assert torch.equal(make_batch(raw, run, step).signs, grad.sign())


@pytest.mark.parametrize("direction", [1, -1])
def test_a_store_for_the_least_likely_class_is_stepped_along_the_other_way(start, small_dataset, stores, direction):
    trainer, _ = start(robust=adversary(directions={"A": direction, "C": direction}))
    step = next(step for step in range(11) if trainer.run.source(step) == "A")
    planes = stores["A"].read(0, 5)
    expected = direction * torch.from_numpy(bitplanes.unpack(planes, 784)).float().view(5, 1, 28, 28)
    raw = stored(small_dataset.train.read_images(0, 5), np.zeros(5, np.int64), planes)
    assert torch.equal(make_batch(raw, trainer.run, step).signs, expected)


def test_the_objective_weighs_clean_and_adversarial_loss(start, small_dataset):
    """One step of plain gradient arithmetic, written out as in section 5.1, gives the same parameters."""
    robust = adversary(sources=("A",), clean_weight=0.3)
    trainer, reader = start(robust=robust, epochs=1, batch=700)
    without_dropout(trainer)
    reference = models.create_model("D", small_dataset.sample_shape, 10, seed=3)
    reference.load_state_dict(trainer.model.state_dict())
    reference.eval()
    raw = next(iter(reader.read(trainer.run.requests(0))))
    x, y = to_unit_range(torch.from_numpy(raw.images)), torch.from_numpy(raw.labels)
    signs = torch.from_numpy(bitplanes.unpack(raw.planes, 784)).float().view_as(x)
    x_adv = (x + 0.3 * signs).clamp(0, 1)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.001)
    loss = 0.3 * functional.cross_entropy(reference(x), y) + 0.7 * functional.cross_entropy(reference(x_adv), y)
    loss.backward()
    optimizer.step()
    (step,) = trainer.steps(reader)
    for one, other in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        # Adam's first step is the gradient's sign, but for a gradient near 1e-8: there rounding moves the parameter.
        clear = other.grad.abs() > 1e-7
        assert (clear | (other.grad == 0)).float().mean() > 0.99
        assert torch.allclose(one[clear], other[clear], atol=2e-6)
    assert 0.3 * step.record.clean_loss + 0.7 * step.record.adversarial_loss == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_live_gradient_is_taken_in_the_mode_that_was_asked_for(start, mode):
    trainer, reader = start(robust=adversary(sources=("self",), live_mode=mode), epochs=1)
    passes = []
    trainer.model.fc1.register_forward_hook(
        lambda module, args, _: passes.append((trainer.model.training, len(args[0])))
    )
    next(trainer.steps(reader))
    # In train mode the clean pass serves the gradient too; in eval mode the gradient has a pass of its own.
    assert passes == ([(True, 64), (True, 64)] if mode == "train" else [(False, 64), (True, 128)])


def test_the_live_perturbation_is_fgsm_on_the_model_itself(start, small_dataset):
    trainer, reader = start(robust=adversary(sources=("self",)), epochs=1)
    without_dropout(trainer)
    raw = next(iter(reader.read(trainer.run.requests(0))))
    images = to_unit_range(torch.from_numpy(raw.images))
    predicted = trainer.model(images).argmax(1)
    expected = fgsm(trainer.model, images, predicted, epsilon=0.3)
    seen = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    next(trainer.steps(reader))
    assert torch.equal(seen[0], images)
    assert torch.equal(seen[1], expected)


def test_training_on_rand_fgsm_moves_at_random_first(start, small_dataset):
    trainer, reader = start(robust=adversary(sources=("self",), attack="rand_fgsm", alpha=0.1), epochs=1)
    without_dropout(trainer)
    seen = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    raw = next(iter(reader.read(trainer.run.requests(0))))
    images = to_unit_range(torch.from_numpy(raw.images))
    next(trainer.steps(reader))
    moved, both = seen
    inside = (images > 0.1) & (images < 0.9)
    assert torch.allclose((moved - images).abs()[inside], torch.tensor(0.1))
    assert torch.equal(both[:64], images)
    step = (both[64:] - moved).abs()[(moved > 0.2) & (moved < 0.8)]
    assert torch.allclose(step, torch.tensor(0.2))
    assert (both[64:] - images).abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("label_at", ["clean", "moved"])
def test_rand_fgsm_is_about_the_label_of_the_clean_image_or_of_the_moved_one(start, monkeypatch, label_at):
    robust = adversary(sources=("self",), attack="rand_fgsm", alpha=0.2, label_at=label_at)
    trainer, reader = start(robust=robust, epochs=1)
    without_dropout(trainer)
    model, taken = trainer.model, []
    raw = next(iter(reader.read(trainer.run.requests(0))))
    clean = model(to_unit_range(torch.from_numpy(raw.images))).argmax(1)

    def loss(logits, labels, gradient):
        taken.append((labels, logits.argmax(1)))
        return attack_loss(logits, labels, gradient)

    monkeypatch.setattr("gradshard.pipeline.gradients.input_gradient.attack_loss", loss)
    next(trainer.steps(reader))
    ((labels, moved),) = taken
    assert not torch.equal(moved, clean)
    assert torch.equal(labels, clean if label_at == "clean" else moved)


def test_records_are_means_since_the_record_before(start):
    trainer, reader = start(robust=adversary(), epochs=5)
    steps = list(trainer.steps(reader))
    records = [step.record for step in steps if step.record]
    expected = sorted({*range(11, 56, 11), *range(RECORD_STEPS, 56, RECORD_STEPS)})
    assert [record.step for record in records] == expected
    live = [step.live for step in steps]
    edges = [0, *expected]
    for record, first, last in zip(records, edges, edges[1:], strict=False):
        assert record.live_share == pytest.approx(np.mean(live[first:last]))
    assert records[-1].clean_loss < records[0].clean_loss


def test_a_loss_that_is_no_number_stops_training(start):
    trainer, reader = start(learning_rate=1e30, epochs=1)
    with pytest.raises(GradshardError, match=r"the clean loss is (nan|inf) at step 11: lower training.learning_rate"):
        list(trainer.steps(reader))


def test_training_learns_the_digits(start):
    trainer, reader = start(epochs=12)
    records = [step.record for step in trainer.steps(reader) if step.record]
    assert records[-1].clean_loss < 0.5 * records[0].clean_loss


@pytest.mark.slow
@pytest.mark.parametrize("model", ["in pieces, between which dropout draws", "in one piece"])
def test_a_compiled_run_takes_the_steps_of_an_eager_one(start, small_dataset, model):
    losses = []
    for compiled in (False, True):
        trainer, reader = start(robust=adversary(schedule="rotate"), epochs=1)
        module = models.create_model("A", small_dataset.sample_shape, 10, seed=3)
        if model == "in one piece":
            module = nn.Sequential(*(layer for layer in module if not isinstance(layer, nn.Dropout)))
        again = Trainer(module, trainer.run, device=CPU, arithmetic="fp32", compiled=compiled)
        losses.append([(r.clean_loss, r.adversarial_loss) for r in (s.record for s in again.steps(reader)) if r])
    assert np.allclose(losses[0], losses[1], rtol=1e-4)


def test_a_compiler_is_asked_for_before_anything_is_compiled(monkeypatch):
    assert not choose_compilation("auto", CPU, steps=10**9)
    assert not choose_compilation("off", torch.device("cuda"), steps=10**9)
    assert choose_compilation("auto", torch.device("cuda"), steps=10**9)
    assert not choose_compilation("auto", torch.device("cuda"), steps=100)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(GradshardError, match=r"training\.compile: on needs a C"):
        choose_compilation("on", CPU, steps=1)


@pytest.mark.parametrize("schedule", ["random", "rotate", "all", "top_k", "loss_weighted"])
def test_without_self_no_pass_is_made_but_that_of_the_loss(start, schedule, monkeypatch):
    """The trainer only streams: whatever would ask the model for an input gradient fails."""
    for name in ("_crafted", "_clean_loss_and_perturbed"):
        monkeypatch.setattr(Ensemble, name, None)
    trainer, reader = start(robust=adversary(sources=("A", "C"), schedule=schedule), epochs=1)
    passes = []
    trainer.model.fc1.register_forward_hook(lambda module, args, _: passes.append(len(args[0])))
    assert not any(step.live for step in trainer.steps(reader))
    versions = 2 if schedule in ("random", "rotate") else 3
    assert passes == [versions * 64] * 10 + [versions * 60]


@pytest.mark.parametrize("schedule", ["rotate", "all"])
def test_without_self_crops_move_images_and_their_signs_together(start, small_dataset, stores, schedule):
    robust = adversary(sources=("A", "C"), schedule=schedule, epsilon=0.1)
    trainer, _ = start(robust=robust, augment=Augmentation(padding=3, flip=True))
    rows = np.arange(64)
    images = torch.from_numpy(small_dataset.train.read_images(0, 64))
    signs = [torch.from_numpy(bitplanes.unpack(stores[name].read(0, 64), 784)).view(64, 1, 28, 28) for name in "AC"]
    planes = [stores[name].read(0, 64) for name in "AC"]
    chosen = np.stack(planes) if schedule == "all" else planes[0]
    batch = make_batch(stored(images.numpy(), rows, chosen), trainer.run, 0)
    views = trainer.run.augmentation.draw(64, seed=3, step=0)
    assert torch.equal(batch.images, to_unit_range(views.apply(images)))
    expected = [views.apply(one.float()) for one in (signs if schedule == "all" else signs[:1])]
    assert torch.equal(batch.signs, torch.stack(expected) if schedule == "all" else expected[0])
    assert not torch.equal(batch.images, to_unit_range(images))


def test_a_combined_loss_is_that_of_each_sources_images(start):
    """Written out: the mean of the losses under the model's own FGSM and under the signs of each store, by weight."""
    robust = adversary(schedule="all", weights={"self": 2.0, "C": 3.0}, clean_weight=0.3)
    trainer, reader = start(robust=robust, epochs=1, batch=700)
    without_dropout(trainer)
    raw = next(iter(reader.read(trainer.run.requests(0))))
    x, y = to_unit_range(torch.from_numpy(raw.images)), torch.from_numpy(raw.labels)
    stored_signs = [torch.from_numpy(bitplanes.unpack(planes, 784)).float().view_as(x) for planes in raw.planes]
    own = fgsm(trainer.model, x, trainer.model(x).argmax(1), epsilon=0.3)
    versions = [own, *((x + 0.3 * signs).clamp(0, 1) for signs in stored_signs)]
    clean = functional.cross_entropy(trainer.model(x), y).item()
    each = [functional.cross_entropy(trainer.model(version), y).item() for version in versions]
    (step,) = trainer.steps(reader)
    assert step.live
    assert step.record.clean_loss == pytest.approx(clean, rel=1e-5)
    assert step.record.adversarial_loss == pytest.approx((2 * each[0] + each[1] + 3 * each[2]) / 6, rel=1e-5)


def test_recent_losses_weigh_the_sources_from_the_next_step_on(start):
    robust = adversary(sources=("A", "C"), schedule="loss_weighted", ema_decay=0.75)
    trainer, reader = start(robust=robust, epochs=1, batch=350)
    without_dropout(trainer)
    averages, found = [trainer.state()["method.recent_losses"]], []
    combine = ensemble.combined

    def kept(kind, losses, weights, *, k):
        found.append((losses.mean(1).detach(), weights.clone()))
        return combine(kind, losses, weights, k=k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "combined", kept)
        averages += [trainer.state()["method.recent_losses"] for _ in trainer.steps(reader)]
    assert averages[0].tolist() == [1, 1]
    for before, after, (losses, weights) in zip(averages[:-1], averages[1:], found, strict=True):
        assert torch.equal(weights, before)
        assert torch.allclose(after, 0.75 * before + 0.25 * losses)


@pytest.mark.parametrize("schedule", ["all", "loss_weighted"])
def test_one_source_has_nothing_to_be_combined_with(start, schedule):
    results = []
    for kind in ("random", schedule):
        trainer, reader = start(robust=adversary(sources=("self",), schedule=kind), epochs=1)
        list(trainer.steps(reader))
        results.append(parameters(trainer))
    assert equal(*results)


@pytest.mark.parametrize("change", [{"schedule": "rotate"}, {"schedule": "all"}, {"objective": "half"}])
def test_every_objective_makes_the_random_step_of_the_copy_whose_turn_it_is(start, small_dataset, stores, change):
    """From within the model: what passes perturbed by R, beside C, in the second epoch."""
    robust = with_random_steps(sources=("R", "C"), **({"schedule": "rotate"} | change))
    trainer, reader = start(robust=robust, epochs=2)
    passed = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: passed.append(args[0].detach().clone()))
    list(trainer.steps(reader))
    step = next(step for step in range(11, 22) if "R" in (trainer.run.stores(step)))
    rows = list(trainer.run.requests(0))[step].rows
    x = to_unit_range(torch.from_numpy(small_dataset.train.take_images(rows)))
    copy = (3 + 1) % 3
    signs = torch.from_numpy(bitplanes.unpack(stores["R"].of_copy(copy).load()[rows], 784)).view_as(x)
    expected = step_along(x, signs, 0.3, step=STEPS[copy], rows=rows)
    if robust.objective == "half":
        assert torch.equal(passed[step][::2], expected[::2])
        assert torch.equal(passed[step][1::2], x[1::2])
    else:
        assert torch.equal(passed[step][:64], x)
        assert torch.equal(passed[step][64:128], expected)
    if robust.combination:
        others = torch.from_numpy(bitplanes.unpack(stores["C"].load()[rows], 784)).view_as(x)
        assert torch.equal(passed[step][128:], (x + 0.3 * others).clamp(0, 1))
