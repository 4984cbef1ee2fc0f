import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes
import resource
import statistics
import sys

import numpy as np
import torch

from gradshard.pipeline import models
from gradshard.pipeline.training import trainer
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.config import TrainingRun
from gradshard.storage.streaming.reader import RawBatch, ReadingPlan

# Where the system gives huge pages unasked, few faults bring much memory.
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

if "given back" in sys.argv:
    trainer.keep_freed_memory = lambda: None


class Images:
    def read(self, requests):
        for request in requests:
            images = np.zeros((len(request.rows), 1, 28, 28), dtype=np.uint8)
            yield RawBatch(request.rows, images, np.zeros(len(request.rows), dtype=np.int64), None)


torch.set_num_threads(1)
run = TrainingRun(64 * 20, 64, 1, 0, Optimization("adam", 0.001), ReadingPlan(True, 64 * 20, 1))
model = models.create_model("A", (1, 28, 28), 10, seed=0)
training = trainer.Trainer(model, run, device=torch.device("cpu"), arithmetic="fp32")
faults = []
for _ in training.steps(Images()):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
# The heap still grows in single steps, at any time: it is the usual step that counts.
print(statistics.median(after - before for before, after in zip(faults, faults[1:])))
"""


def pages_of_a_step(*arguments):
    done = subprocess.run([sys.executable, "-c", STEPS, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_a_training_step_does_not_have_its_memory_zeroed_anew():
    assert pages_of_a_step("given back") > 1000
    assert pages_of_a_step() < 200
