import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models.dropout import Dropout, rows_of, set_dropout
from gradshard.storage.errors import GradshardError


@pytest.mark.parametrize("p", [0.2, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elements_are_dropped_at_the_rate_and_the_others_scaled(p, dtype):
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(200_000, dtype=dtype)).float()
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.005)
    assert out[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=0.01)


def test_the_gradient_is_the_mask():
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.where(out == 0, 0.0, 4 / 3))


def test_the_mask_follows_the_seed_and_not_the_memory_format():
    x = torch.ones(4, 8, 6, 6)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(Dropout(0.5)(x))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    last = Dropout(0.5)(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert 0.4 < (last == 0).float().mean() < 0.6


def test_nothing_is_dropped_outside_training_or_at_rate_0():
    x = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_a_view_with_gaps_is_dropped_like_any_tensor():
    torch.manual_seed(0)
    x = torch.ones(100, 64)[:, ::2]
    out = Dropout(0.5)(x)
    assert out.shape == x.shape
    assert 0.45 < (out == 0).float().mean() < 0.55


def test_neighbouring_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(80_000)) != 0).view(-1, 8).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 0.05


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_some_rows_of_a_batch_are_dropped_as_if_all_passed(p, memory_format):
    layer, x = Dropout(p), torch.ones(12, 4, 3, 5).to(memory_format=memory_format)
    torch.manual_seed(7)
    whole = layer(x)
    positions = torch.tensor([1, 2, 3, 8, 11])
    torch.manual_seed(7)
    with rows_of(12, positions):
        part = layer(x[positions].contiguous(memory_format=memory_format))
    assert torch.equal(part, whole[positions])
    torch.manual_seed(7)
    assert torch.equal(layer(x), whole)


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [
        ("D", (1, 28, 28), [0.2] * 4),
        ("timm:inception_v3", (3, 107, 107), [0.2]),
        ("timm:vit_tiny_patch16_224", (3, 32, 32), [0.2]),
    ],
)
def test_the_rate_is_set_where_a_model_drops(architecture, shape, expected):
    """Of a model of timm, before its classifier alone: a transformer has layers that drop nothing everywhere."""
    model = models.create_model(architecture, shape, 10, seed=1)
    set_dropout(model, 0.2, where="x")
    found = [part for part in model.modules() if isinstance(part, nn.Dropout) and part.p]
    assert [part.p for part in found] == expected
    assert all(type(part) is Dropout for part in found)


def test_a_model_that_drops_nothing_is_refused():
    with pytest.raises(GradshardError, match=r"^training\.dropout: architecture small_resnet has no dropout layer"):
        set_dropout(
            models.create_model("small_resnet", (3, 32, 32), 10, seed=1), 0.2, where="architecture small_resnet"
        )
