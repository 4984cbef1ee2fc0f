"""FGSM-EP, -PGI and -MEP on models whose gradients are known; what they keep, and that two bits of it are enough."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.float_buffer import FloatBuffer
from gradshard.pipeline import models
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.perturb import nearest_signs, perturb
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import Batch, Origin, RankSlice
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.methods.fgsm_ep import FgsmEP
from gradshard.pipeline.training.methods.fgsm_mep import FgsmMEP
from gradshard.pipeline.training.methods.fgsm_pgi import FgsmPGI
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.passes import Passes
from gradshard.pipeline.training.priors import SignBuffer
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.streaming.reader import open_reader, plan_reading
from tests.helpers.adversaries import adversary_of
from tests.helpers.linear_model import LinearModel

CPU, EPSILON = torch.device("cpu"), 0.25
SHAPE = (1, 2, 3)
WEIGHTS = torch.tensor([[1.0, -2.0, 0.0, 3.0, -1.0, 2.0], [0.0] * 6])
# About class 0, the gradient of J is a negative multiple of the first row less the second.
GRADIENT = -WEIGHTS[0].sign().view(1, *SHAPE)


def adversary(method, **settings):
    return adversary_of(method, epsilon=EPSILON, **settings)


def batch(images, rows, *, epoch, views=None):
    labels = torch.zeros(len(images), dtype=torch.int64)
    part = RankSlice(len(images), slice(0, len(images)))
    return Batch(images, labels, part, epsilon=EPSILON, origin=Origin(epoch, np.array(rows), views))


def method(kind, buffer, **settings):
    name = {FgsmEP: "fgsm_ep", FgsmPGI: "fgsm_pgi", FgsmMEP: "fgsm_mep"}[kind]
    return kind(adversary(name), shape=(4, *SHAPE), device=CPU, prior=buffer, reset_epochs=40, **settings)


def step(chosen, given, passes):
    """One step of a method, after which it remembers; gives its losses."""
    torch.manual_seed(given.origin.epoch)
    losses = chosen.losses(given, passes)
    losses.total.backward()
    chosen.remember(given, losses, Rank())
    return losses


@pytest.mark.parametrize("buffer", [SignBuffer, FloatBuffer])
def test_ep_steps_by_epsilon_from_where_the_last_epoch_ended(buffer):
    images, passes = torch.full((3, *SHAPE), 0.5), Passes(LinearModel(WEIGHTS))
    ep = method(FgsmEP, buffer(9, SHAPE, device=CPU))
    torch.manual_seed(0)
    expected = 2.0 * torch.randint(0, 2, images.shape) - 1
    for epoch in range(4):
        expected = (expected + GRADIENT).clamp(-1, 1)
        losses = step(ep, batch(images, [7, 2, 4], epoch=epoch), passes)
        assert torch.allclose(ep.prior.read(np.array([7, 2, 4])), expected)
        logits = LinearModel(WEIGHTS)(images + EPSILON * expected)
        assert torch.allclose(losses.total, functional.cross_entropy(logits, torch.zeros(3, dtype=torch.int64)))
    assert torch.equal(expected, GRADIENT.where(GRADIENT != 0, expected))


def test_ep_starts_at_random_again_in_every_epoch_of_a_reset():
    images, passes = torch.full((3, *SHAPE), 0.5), Passes(LinearModel(WEIGHTS))
    ep = FgsmEP(
        adversary("fgsm_ep"), shape=(3, *SHAPE), device=CPU, prior=SignBuffer(3, SHAPE, device=CPU), reset_epochs=2
    )
    for epoch in range(3):
        given = batch(images, [0, 1, 2], epoch=epoch)
        torch.manual_seed(epoch)
        before = ep.prior_of(given)
        assert torch.equal(before, ep.prior.read(np.arange(3))) == (epoch == 1)
        assert set(before.unique().tolist()) <= {-1.0, 0.0, 1.0}
        step(ep, given, passes)


def test_pgi_adds_the_weighed_distance_of_the_logits_and_trains_through_both_passes():
    images, model = torch.full((3, *SHAPE), 0.5), LinearModel(WEIGHTS)
    pgi = method(FgsmPGI, SignBuffer(3, SHAPE, device=CPU), prior_weight=10.0)
    given = batch(images, [0, 1, 2], epoch=0)
    torch.manual_seed(0)
    before = pgi.prior_of(given)
    losses = step(pgi, given, Passes(model))
    found = model.linear.weight.grad.clone()
    model.linear.weight.grad = None
    logits = [model(images + EPSILON * signs) for signs in (before, (before + GRADIENT).clamp(-1, 1))]
    adversarial = functional.cross_entropy(logits[1], given.labels)
    expected = adversarial + 10 * functional.mse_loss(logits[1], logits[0])
    expected.backward()
    assert torch.allclose(losses.total, expected)
    assert torch.allclose(losses.adversarial, adversarial)
    assert torch.allclose(found, model.linear.weight.grad, atol=1e-6)


def test_mep_begins_where_the_momentum_of_all_epochs_leads_and_trains_along_the_gradient_alone():
    images, settings = torch.full((3, *SHAPE), 0.5), {"prior_weight": 10.0, "prior_momentum": 0.3}
    mep = method(FgsmMEP, SignBuffer(3, SHAPE, device=CPU), **settings)
    # The second pixel's gradient turns round, but is smaller than what the momentum keeps of the first epoch's.
    later = torch.stack([torch.tensor([1.0, 0.4, 0.0, 3.0, -1.0, 2.0]), torch.zeros(6)])
    step(mep, batch(images, [0, 1, 2], epoch=0), Passes(LinearModel(WEIGHTS)))
    before, first = mep.prior.read(np.arange(3)), -(WEIGHTS[0] / 9).view(1, *SHAPE)
    given, gradient = batch(images, [0, 1, 2], epoch=1), -(later[0] / later[0].abs().sum()).view(1, *SHAPE)
    losses = step(mep, given, Passes(LinearModel(later)))
    momentum = gradient + 0.3 * first
    assert momentum.sign().flatten()[1] == -gradient.sign().flatten()[1] != 0
    assert torch.allclose(mep.state()["momentum"], momentum.expand(3, *SHAPE), atol=1e-6)
    assert torch.equal(mep.prior.read(np.arange(3)), (before + momentum.sign()).clamp(-1, 1))
    trained = LinearModel(later)(images + EPSILON * (before + gradient.sign()).clamp(-1, 1))
    assert torch.allclose(losses.adversarial, functional.cross_entropy(trained, given.labels))


def test_mep_forgets_its_momentum_in_an_epoch_of_a_reset():
    images = torch.full((3, *SHAPE), 0.5)
    mep = method(FgsmMEP, SignBuffer(3, SHAPE, device=CPU), prior_weight=10.0, prior_momentum=0.3)
    found = []
    for epoch in (0, 40):
        step(mep, batch(images, [0, 1, 2], epoch=epoch), Passes(LinearModel(WEIGHTS)))
        found.append(mep.state()["momentum"].clone())
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [FgsmEP, FgsmPGI])
def test_a_step_takes_two_passes_forward_and_pgi_three_backward(kind):
    settings = {"prior_weight": 10.0} if kind is FgsmPGI else {}
    passes = Passes(LinearModel(WEIGHTS))
    step(
        method(kind, SignBuffer(3, SHAPE, device=CPU), **settings),
        batch(torch.rand(3, *SHAPE), [0, 1, 2], epoch=0),
        passes,
    )
    assert passes.take_counts() == (6, 9 if kind is FgsmPGI else 6)


def test_what_a_crop_hides_of_an_image_keeps_its_perturbation():
    images = torch.full((4, *SHAPE), 0.5)
    ep = method(FgsmEP, SignBuffer(4, SHAPE, device=CPU))
    step(ep, batch(images, range(4), epoch=0), Passes(LinearModel(WEIGHTS)))
    before = ep.prior.read(np.arange(4))
    views = Augmentation(padding=1, flip=True).draw(4, seed=1, step=1)
    step(ep, batch(views.apply(images), range(4), epoch=1, views=views), Passes(LinearModel(WEIGHTS)))
    moved = (views.apply(before) + GRADIENT).clamp(-1, 1)
    # Outside of the image there is 0, where no perturbation goes below.
    inside = views.apply(torch.ones_like(images)) > 0
    assert torch.equal(views.apply(ep.prior.read(np.arange(4)))[inside], moved[inside])
    hidden = views.undo(torch.zeros_like(images), torch.ones_like(images)) > 0
    assert hidden.any()
    assert torch.equal(ep.prior.read(np.arange(4))[hidden], before[hidden])


@pytest.fixture
def trainer(small_dataset):
    """Make a trainer of a small model by a method, and its reader."""

    def make(name, *, epochs=2, arithmetic="fp32", augment=None, rows_at_once=None):
        reading = plan_reading(small_dataset.train, {}, memory=1 << 30)
        run = TrainingRun(
            rows=700,
            batch=64,
            epochs=epochs,
            seed=3,
            optimization=Optimization("adam", 0.001),
            reading=reading,
            adversary=adversary(name),
            augmentation=augment or Augmentation(),
            sample_shape=small_dataset.sample_shape,
        )
        model = models.create_model("small_cnn", small_dataset.sample_shape, 10, seed=3)
        made = Trainer(model, run, device=CPU, arithmetic=arithmetic, rows_at_once=rows_at_once)
        return made, open_reader(small_dataset.train, {}, reading)

    return make


@pytest.mark.parametrize(("name", "arithmetic"), [("fgsm_ep", "fp32"), ("fgsm_pgi", "bf16"), ("fgsm_mep", "fp32")])
def test_a_resumed_run_ends_with_the_same_weights_and_the_same_perturbations(trainer, name, arithmetic):
    augment = Augmentation(padding=2)
    whole, reader = trainer(name, arithmetic=arithmetic, augment=augment)
    kept = {}
    for taken in whole.steps(reader):
        if taken.number == 11:
            kept = {key: value.clone() for key, value in whole.state().items()}
            planes = whole.prior.held(slice(0, 700)).copy()
    resumed, reader = trainer(name, arithmetic=arithmetic, augment=augment)
    resumed.load_state(kept)
    resumed.prior.load(planes)
    torch.manual_seed(99)
    assert len(list(resumed.steps(reader))) == 11
    assert torch.equal(whole.prior.planes, resumed.prior.planes)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])


@pytest.mark.parametrize("name", ["fgsm_pgi", "fgsm_mep"])
def test_a_batch_that_passes_in_pieces_keeps_what_one_keeps_that_passes_at_once(trainer, name):
    found = []
    for rows_at_once in (None, 10):
        made, reader = trainer(name, augment=Augmentation(2, True), epochs=1, rows_at_once=rows_at_once)
        for _ in made.steps(reader):
            pass
        assert len(made.prior.take_changes()) == 700
        found.append(np.unpackbits(made.prior.planes.numpy()))
    # Where a gradient is next to 0, the order of a sum decides its sign.
    assert (found[0] != found[1]).mean() < 1e-3


def test_two_bits_hold_a_sixteenth_of_the_floats_and_the_same_perturbations_but_near_black_and_white(
    trainer, small_dataset
):
    floats, reader = trainer("fgsm_ep")
    floats.method.prior = FloatBuffer(700, small_dataset.sample_shape, device=CPU)
    for _ in floats.steps(reader):
        pass
    bits = SignBuffer(700, small_dataset.sample_shape, device=CPU)
    assert 16 * bits.planes.nbytes == floats.method.prior.values.nbytes
    images = to_unit_range(torch.from_numpy(small_dataset.train.load()[0]))
    perturbed = images + EPSILON * floats.method.prior.values
    stored = perturb(images, nearest_signs(images, perturbed, EPSILON), EPSILON)
    differs = (stored - perturbed).abs() > 1e-5
    assert differs.any()
    assert differs.float().mean() < 0.03
    assert ((images < EPSILON) | (images > 1 - EPSILON))[differs].all()
