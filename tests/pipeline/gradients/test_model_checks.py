"""A model is checked before any work: each kind of fault is one sentence, and the model is left as it was."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradshard.pipeline.gradients.model_checks import Gradients, Sample, check_frozen, check_trainable
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.probabilities import LogProbabilities
from gradshard.storage.errors import GradshardError


class Net(nn.Module):
    """Small and honest; what is wrong with the others is in ``before`` or ``after`` it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * 64, 10)

    def before(self, images: Tensor) -> Tensor:
        return images

    def after(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.head(self.body(self.before(images)).flatten(1)))


def faulty(name: str, method: str = "before") -> nn.Module:
    return type("Faulty", (Net,), {method: FAULTS[name]})()


FAULTS = {
    "in place": lambda self, x: x.sub_(0.5),
    "in place, values as they were": lambda self, x: torch.relu_(x),
    "noise": lambda self, x: x + 0.05 * torch.randn_like(x),
    "always drops": lambda self, x: nn.functional.dropout(x, 0.5),
    "of the batch": lambda self, x: x - x.mean(0),
    "alone it fails": lambda self, x: x if len(x) > 1 else {}["x"],
    "detached": lambda self, x: x.detach(),
    "rounds": lambda self, x: (x * 4).round() / 4,
    "norm at 0": lambda self, x: x * (1 + (x[:, :, :2, :2] ** 2).sum((1, 2, 3), keepdim=True).sqrt()),
    "probabilities": lambda self, z: z.softmax(1),
    "a tuple in train mode": lambda self, z: (z, z) if self.training else z,
    "one logit too many": lambda self, z: torch.cat([z, z[:, :1]], 1),
    "NaN": lambda self, z: z * math.nan,
}


@pytest.fixture(scope="module")
def sample(digits) -> Sample:
    images, labels = digits["train"]
    return Sample(to_unit_range(torch.from_numpy(images[::800])), torch.from_numpy(labels[::800]).long(), classes=10)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_an_honest_model_passes_and_nothing_of_it_changes(sample):
    model = Net().train()
    model.body[1].eval()
    state, random = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    images = sample.images.clone()
    assert check_frozen(model, sample, where="net") == Gradients(rows=len(images), zero=0, undefined=0)
    check_trainable(model, sample, where="net", least_rows=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert (model.training, model.body[0].training, model.body[1].training) == (True, True, False)
    assert torch.equal(sample.images, images)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("fault", "method", "sentence"),
    [
        ("in place", "before", "net changes the images that it is given, which others are given after it"),
        ("in place, values as they were", "before", "net changes the images that it is given"),
        ("noise", "before", "net is random in eval mode: two passes over the same 5 images give other logits"),
        ("always drops", "before", "net is random in eval mode"),
        ("of the batch", "before", "net gives an image other logits alone than in a batch: in eval mode nothing may"),
        ("alone it fails", "before", r"net gives an image other logits alone than in a batch \('x'\)"),
        ("detached", "before", "net lets no gradient through to the images"),
        ("probabilities", "after", r"net gives probabilities and not logits: .* set output: probabilities"),
        ("one logit too many", "after", r"net gives \(5, 11\) in eval mode and not logits of shape \(5, 10\)"),
        ("NaN", "after", "net gives logits in eval mode that are no finite numbers"),
    ],
)
def test_what_cannot_be_attacked_is_refused(sample, fault, method, sentence):
    with pytest.raises(GradshardError, match=sentence) as caught:
        check_frozen(faulty(fault, method), sample, where="net")
    assert "\n" not in str(caught.value)


def test_a_model_that_stays_in_train_mode_is_refused(sample):
    model = type("Faulty", (Net,), {"eval": lambda self: self})()
    with pytest.raises(GradshardError, match=r"net stays in train mode after eval\(\), such as its Faulty: let its"):
        check_frozen(model, sample, where="net")


def test_batch_normalisation_without_running_statistics_is_refused(sample):
    model = Net()
    model.body[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(GradshardError, match=r"other logits alone than in a batch.*track_running_stats=True"):
        check_frozen(model, sample, where="net")


def test_rows_without_a_gradient_are_counted(sample):
    assert check_frozen(faulty("rounds"), sample, where="net") == Gradients(rows=5, zero=5)
    # The corner of every digit is black, where the norm has no slope; the logits are numbers.
    assert check_frozen(faulty("norm at 0"), sample, where="net") == Gradients(rows=5, undefined=5)


def test_probabilities_pass_once_their_logarithm_is_taken_and_logits_do_not(sample):
    inner = faulty("probabilities", "after")
    assert check_frozen(LogProbabilities(inner), sample, where="net").zero == 0
    with pytest.raises(GradshardError, match="net gives no probabilities, as output: probabilities says"):
        check_frozen(LogProbabilities(Net()), sample, where="net")


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_the_arithmetic_of_the_run_is_tried(sample, arithmetic):
    seen = []

    class Telling(Net):
        def after(self, logits):
            seen.append(logits.dtype)
            return logits

    check_frozen(Telling(), sample, where="net", arithmetic=arithmetic)
    assert seen[-1] == {"fp32": torch.float32, "bf16": torch.bfloat16}[arithmetic]


def test_weights_that_are_no_numbers_are_named(sample):
    model = Net()
    with torch.no_grad():
        model.body[0].weight[1, 0, 2, 2] = math.nan
    with pytest.raises(GradshardError, match=r"net holds 1 values of 100 in body\.0\.weight that are no finite"):
        check_frozen(model, sample, where="net")


def test_a_mask_of_minus_infinity_is_no_fault(sample):
    model = Net()
    model.register_buffer("mask", torch.full((3,), -math.inf))
    check_frozen(model, sample, where="net")


class Reentrant(Net):
    def forward(self, images):
        return checkpoint(super().forward, images.requires_grad_(True), use_reentrant=True)


class Auxiliary(Net):
    def after(self, logits):
        return FAULTS["a tuple in train mode"](self, logits)


class FeatureNorm(Net):
    def __init__(self):
        super().__init__()
        self.last = nn.BatchNorm1d(10)

    def after(self, logits):
        return self.last(logits)


@pytest.mark.parametrize(
    ("model", "least", "sentence"),
    [
        (Auxiliary, None, r"net gives a tuple in train mode and not logits of .*without auxiliary heads"),
        (Reentrant, None, r"net cannot be gone through backwards \(.*use_reentrant=False"),
        (FeatureNorm, 1, r"net does not take a batch of 1 in train mode .*choose another training\.batch"),
        (lambda: Net().requires_grad_(False), None, "net has no parameter that can be trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(sample, model, least, sentence):
    with pytest.raises(GradshardError, match=sentence) as caught:
        check_trainable(model(), sample, where="net", least_rows=least)
    assert "\n" not in str(caught.value)


def test_a_last_batch_of_two_is_none_of_one(sample):
    check_trainable(FeatureNorm(), sample, where="net", least_rows=2)
