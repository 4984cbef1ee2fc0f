"""Two processes with half a batch each take the steps of one with the whole; and a lost one is told in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.storage.errors import GradshardError
from gradshard.storage.streaming.reader import ReadingPlan
from tests.helpers.servers import free_port

ROOT = Path(__file__).parents[3]
# What each rank runs: a few steps on random images, every loss kept by the first.
PROGRAM = """
import json, sys
import torch
from torch import nn
from gradshard.pipeline import models
from gradshard.pipeline.training import trainer
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.random_step import RandomStep
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.distributed import init_distributed
from gradshard.pipeline.training.config import TrainingRun
from gradshard.storage.streaming.reader import ReadingPlan
from tests.helpers.random_rows import RandomRows

options = json.loads(sys.argv[1])
trainer.RECORD_STEPS = 1

def with_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )

with init_distributed(torch.device("cpu")) as (ranks, device):
    torch.set_num_threads(1)
    adversary = Adversary(
        attack=options["attack"], epsilon=0.3, alpha=0.05, clean_weight=0.5, sources=options["sources"],
        schedule=options["schedule"], gradient="exact", policy="predicted", live_mode=options["mode"],
        directions={"S": 1, "T": -1}, objective=options["objective"], adversarial_weight=0.3,
        epsilon_law=options["law"], method=options["method"],
        random_steps={name: tuple(RandomStep(0.05, 1, copy) for copy in range(3)) for name in options["stored_steps"]},
    )
    run = TrainingRun(
        rows=60, batch=16, epochs=2, seed=1, optimization=Optimization("rmsprop", options["rate"]),
        reading=ReadingPlan(True, 60, 1), adversary=adversary, augmentation=Augmentation(2, True),
        batch_norm="synchronised", average=options.get("average"), ranks=ranks, sample_shape=(1, 28, 28),
        replays=2 if options["method"] == "free_at" else 1,
    )
    model = with_batch_norm() if options["batch_norm"] else models.create_model("D", (1, 28, 28), 10, seed=0)
    if options["unused"]:
        model.register_parameter("mask_token", nn.Parameter(torch.ones(3)))
    loop = trainer.Trainer(model, run, device=device, arithmetic="fp32")
    loop.share_state()
    records = [step.record for step in loop.steps(RandomRows())]
    kept = torch.zeros(0, dtype=torch.uint8) if loop.prior is None else loop.prior.planes
    assert torch.equal(ranks.shared(kept.clone()), kept)
    if ranks.first:
        losses = [(record.clean_loss, record.adversarial_loss) for record in records]
        norms = [tensor.double().norm() for tensor in loop.result.state_dict().values()]
        found = {"losses": losses, "passes": loop.passes, "norm": float(sum(norms)), "kept": kept.flatten().tolist()}
        print(json.dumps(found))
"""


def start(program, arguments, ranks):
    port, environment = str(free_port()), {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    for rank in range(ranks):
        joining = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        yield subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env=environment | (joining if ranks > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def train(ranks, **options):
    processes = list(start(PROGRAM, [json.dumps(options)], ranks))
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, outputs
    return json.loads(outputs[0][0].splitlines()[-1])


PLAIN = {
    "batch_norm": False,
    "unused": False,
    "attack": "fgsm",
    "sources": ["self", "S"],
    "mode": "train",
    "objective": "both",
    "law": "fixed",
    "schedule": "rotate",
    "stored_steps": [],
    "method": "ensemble",
    "rate": 0.05,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"objective": "half", "law": "truncated_normal"},
        {"attack": "rand_fgsm", "sources": ["self"]},
        {"batch_norm": True, "objective": "half", "mode": "eval"},
        {"batch_norm": True, "objective": "half", "mode": "eval", "average": 0.9},
        {"sources": ["self", "S", "T"], "schedule": "loss_weighted", "law": "truncated_normal"},
        {"sources": ["S", "T"], "schedule": "top_k"},
        {"sources": ["S", "T"], "schedule": "all", "stored_steps": ["T"]},
        {"sources": ["self"], "method": "free_at"},
        {"sources": ["self"], "method": "fast_at", "batch_norm": True},
        {"unused": True},
    ],
    ids=[
        "dropout, shared pass",
        "half, drawn epsilons",
        "random steps",
        "batch norm",
        "average",
        "recent losses",
        "top k",
        "stored random steps",
        "carried perturbation",
        "random start, batch norm",
        "a parameter that no loss reaches",
    ],
)
def test_two_ranks_take_the_steps_of_one(changed):
    """Dropout, crops, epsilons, random steps and batch statistics are those of the whole batch."""
    options = PLAIN | changed
    one, two = train(1, **options), train(2, **options)
    assert len(one["losses"]) == 8
    assert one["passes"] == two["passes"]
    one["losses"], two["losses"] = ([[part or 0.0 for part in step] for step in run["losses"]] for run in (one, two))
    assert np.allclose(one["losses"], two["losses"], rtol=2e-4)
    assert one["norm"] == pytest.approx(two["norm"], rel=1e-5)
    assert one["losses"][0] != one["losses"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fgsm_ep", "fgsm_pgi", "fgsm_mep"])
def test_two_ranks_keep_the_perturbations_that_one_keeps(method):
    options = {**PLAIN, "sources": ["self"], "method": method, "rate": 0.001}
    one, two = train(1, **options), train(2, **options)
    assert np.allclose([loss for _, loss in one["losses"]], [loss for _, loss in two["losses"]], rtol=2e-3)
    kept = [np.unpackbits(np.array(found["kept"], dtype=np.uint8)) for found in (one, two)]
    assert len(kept[0]) == 60 * 2 * 784
    # Where a gradient is next to 0, the order of a sum decides its sign.
    assert (kept[0] != kept[1]).mean() < 1e-3


LOST = """
import sys, torch
from gradshard.pipeline.training.distributed import init_distributed
from gradshard.storage.errors import GradshardError
with init_distributed(torch.device("cpu")) as (ranks, device):
    ranks.total(torch.ones(1))
    if not ranks.first:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        for _ in range(1000):
            ranks.total(torch.ones(1000))
    except GradshardError as error:
        print(error)
        os = __import__("os")
        os._exit(7)
"""


@pytest.mark.slow
def test_a_rank_that_is_killed_is_told_in_one_sentence_by_the_others():
    first, second = start(LOST, [], 2)
    said, trouble = first.communicate(timeout=60)
    assert second.wait(timeout=60) == -9
    assert first.returncode == 7, trouble
    assert said.startswith("rank 0 of 2 lost another one (")
    assert "go on from the last checkpoint" in said


def test_every_row_of_a_batch_is_one_ranks():
    for rows in range(1, 40):
        for size in range(1, rows + 1):
            parts = [Rank(rank, size).part(rows) for rank in range(size)]
            taken = [row for part in parts for row in range(rows)[part]]
            assert taken == list(range(rows))
            assert max(len(range(rows)[p]) for p in parts) - min(len(range(rows)[p]) for p in parts) <= 1


@pytest.mark.parametrize("reading", [ReadingPlan(True, 700, 1), ReadingPlan(False, 8, 20)], ids=["resident", "windows"])
def test_one_rank_and_four_train_on_the_same_batches(reading):
    runs = [
        TrainingRun(700, 64, 2, 5, Optimization("adam", 0.1), reading, ranks=Rank(rank, ranks))
        for rank, ranks in ((0, 1), (0, 4), (1, 4), (2, 4), (3, 4))
    ]
    for whole, *parts in zip(*(run.requests(3) for run in runs), strict=True):
        assert np.array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
        assert {len(part.rows) for part in parts} <= {len(whole.rows) // 4, len(whole.rows) // 4 + 1}


def test_a_batch_too_small_for_its_ranks_is_refused():
    Rank(0, 4).check(64, 16)
    with pytest.raises(GradshardError, match="4 ranks cannot share a batch of 3 rows"):
        Rank(0, 4).check(67, 16)


def test_alone_nothing_is_summed_or_shared():
    values = torch.tensor([1.0, 2.0])
    assert Rank().total(values) is values
    assert Rank().shared(values) is values
