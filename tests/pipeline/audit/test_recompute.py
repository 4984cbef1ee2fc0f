"""Comparing stored signs with recomputed gradients: closed forms, and the probability that an audit states."""

import math

import numpy as np
import pytest
import torch

from gradshard.pipeline.audit.recompute import audit_rows, compare, detection_probability, labels_match, limits


def test_gain_is_the_share_of_the_first_order_gain_that_the_signs_reach():
    grad = torch.tensor([[4.0, -2.0, 1.0, 0.0], [4.0, -2.0, 1.0, 0.0], [1e-30, -1e-30, 0.0, 0.0]])
    signs = torch.tensor([[1, -1, -1, 0], [-1, 1, -1, 0], [1, -1, 0, 0]], dtype=torch.int8)
    gain, agreement = compare(grad, signs)
    assert gain.tolist() == pytest.approx([5 / 7, -1, 1])
    assert agreement.tolist() == pytest.approx([3 / 4, 1 / 4, 1])


def test_a_row_without_any_gradient_is_judged_by_its_signs():
    gain, agreement = compare(torch.zeros(2, 4), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int8))
    assert gain.tolist() == agreement.tolist() == [1, 3 / 4]


def test_no_sign_is_right_where_the_gradient_is_no_number():
    grad = torch.tensor([[math.nan, math.nan], [math.inf, 1.0]])
    gain, agreement = compare(grad, torch.tensor([[0, 0], [1, 1]], dtype=torch.int8))
    assert gain.tolist() == agreement.tolist() == [0, 0]


def test_rows_whose_gradient_is_0_are_counted_beside(linear_model):
    model = linear_model(scale=0.0)
    images, labels = torch.full((3, 1, 3, 4), 9, dtype=torch.uint8), torch.tensor([0, 1, 0])
    audit = audit_rows(model, images, labels, torch.zeros(3, 12), gradient="exact", rows=np.arange(3))
    assert audit.zero_rows == 3
    assert not len(audit.bad(limits("exact", "float32")))


def test_a_wrong_sign_counts_by_its_gradient_not_by_its_number():
    """What another precision gets wrong is all but zero; what a forger gets wrong is not."""
    grad = torch.cat([torch.full((1, 50), 1e-6), torch.ones(1, 50)], dim=1)
    rounding, forged = torch.ones(2, 1, 100, dtype=torch.int8).unbind()
    rounding, forged = rounding.clone(), forged.clone()
    rounding[:, :10] = -1
    forged[:, 90:] = -1
    (honest_gain,), (honest_agreement,) = compare(grad, rounding)
    (forged_gain,), (forged_agreement,) = compare(grad, forged)
    assert honest_agreement == forged_agreement == 0.9
    assert honest_gain > 0.999999 > 0.81 > forged_gain


def test_rows_of_a_linear_model_are_found_right_and_their_negation_wrong(linear_model):
    model = linear_model(seed=1)
    images = torch.randint(256, (5, 1, 3, 4), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1, 1])
    weight = model.linear.weight.detach()
    # Two classes: u = z_other - z_label, so its gradient is the difference of two rows of W.
    signs = (weight[1 - labels] - weight[labels]).sign().to(torch.int8)
    signs[3] *= -1
    audit = audit_rows(model, images, labels, signs, gradient="exact", rows=np.arange(10, 15))
    assert audit.gain.tolist() == pytest.approx([1, 1, 1, -1, 1])
    assert audit.bad(limits("exact", "float32")).tolist() == [13]


@pytest.mark.parametrize(("policy", "best"), [("predicted", "argmax"), ("least_likely", "argmin")])
def test_labels_are_right_by_their_policy_and_near_ties_count_as_right(linear_model, policy, best):
    model = linear_model(classes=4, seed=2)
    images = torch.randint(256, (50, 1, 3, 4), dtype=torch.uint8)
    logits = model(images.float() / 255)
    right = getattr(logits, best)(1)
    true = torch.zeros(50, dtype=torch.int64)
    assert labels_match(model, images, true, right, policy).all()
    for other in range(4):
        wrong = torch.full((50,), other)
        distance = (logits[:, other] - logits.gather(1, right.unsqueeze(1)).squeeze(1)).abs()
        expected = distance <= 0.02 * logits.abs().amax(1)
        assert torch.equal(labels_match(model, images, true, wrong, policy), expected)
    assert labels_match(model, images, right, right, "true").all()
    assert not labels_match(model, images, right + 1, right, "true").any()


@pytest.mark.parametrize(("rows", "sampled", "bad"), [(60_000, 200, 3000), (700, 20, 35), (10, 3, 1), (10, 10, 1)])
def test_the_stated_probability_is_that_of_drawing_without_replacement(rows, sampled, bad):
    exact = 1 - math.comb(rows - bad, sampled) / math.comb(rows, sampled)
    assert detection_probability(rows, sampled, bad) == pytest.approx(exact, rel=1e-9)


def test_two_hundred_rows_notice_five_percent_of_bad_rows_almost_surely():
    assert detection_probability(60_000, 200, 3000) > 0.9999
    assert detection_probability(1_281_167, 200, 12_812) == pytest.approx(0.866, abs=0.001)
