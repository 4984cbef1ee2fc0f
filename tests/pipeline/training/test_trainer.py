"""Training: which rows a step sees, the objective it goes down, and what is recorded of it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradshard.pipeline import models
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.training.trainer import RECORD_STEPS
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from tests.helpers.trainers import adversary, equal, parameters, without_dropout


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
