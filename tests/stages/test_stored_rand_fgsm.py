"""Training on a RAND+FGSM store of several copies takes the attack that the model would craft live, bit for bit."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import gradshard as gs
from gradshard.pipeline.attacks.fgsm import rand_fgsm
from gradshard.pipeline.config.training import HeldBackParams
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.gradients.microbatches import microbatches
from gradshard.pipeline.training.passes import Passes
from gradshard.stages.training.held_back import make_judge
from gradshard.storage.streaming.reader import InMemoryReader
from tests.helpers.projects import call, new_project

EPSILON, ALPHA, SEED, COPIES, ROWS = 0.3, 0.05, 4, 3, 600
STORE = {"model": "A", "gradient": "exact", "label": "predicted", "attack": "rand_fgsm", "eps": EPSILON, "alpha": ALPHA}
ROBUST = {"architecture": "D", "sources": ["R"], "self": False, "epochs": COPIES}
WINDOWS = 200_000  # bytes of memory, in which neither the images nor the signs of 600 digits find room


def noise(rows, copy):
    """The signs of the random step as docs/sign-store.md defines them, without gradshard."""
    draws = [np.random.Philox(key=[SEED, 0], counter=[0, row, copy, 0]).random_raw(13).astype("<u8") for row in rows]
    bits = [np.unpackbits(drawn.view(np.uint8))[:784] for drawn in draws]
    return torch.from_numpy(np.stack(bits)).float().view(-1, 1, 28, 28) * 2 - 1


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits):
    """A project with a static model A and its store R."""
    project = new_project(tmp_path_factory.mktemp("random") / "project", digits, train=ROWS)
    project.edit(lambda params: params["signs"].update(R={**STORE, "copies": COPIES, "seed": SEED}))
    project.edit(lambda params: params["robust"].update(stored=ROBUST))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        for stage in (("prepare",), ("train-static", "A"), ("precompute", "R")):
            assert call(patch, *stage) == 0
    return project


@pytest.fixture(autouse=True)
def _there(project, monkeypatch):
    monkeypatch.chdir(project.path)


@pytest.fixture(scope="module")
def images(project):
    split = gs.open_dataset(project.path / "data/npz.zarr").train
    return torch.from_numpy(split.take_images(np.arange(ROWS))).float() / 255


@pytest.fixture(scope="module")
def live(project, images):
    """What the model crafts live from each image, for each copy, float32 (copies, n, C, H, W).

    In batches of the rows that were stored at once: the last bit of a gradient may depend on the others beside it.
    """
    model = gs.load_model(project.path / "models/static/A.safetensors", gs.open_dataset(project.path / "data/npz.zarr"))
    crafted = []
    for copy in range(COPIES):
        for rows in microbatches(images, model):
            labels, drawn = model(images[rows]).argmax(1), noise(range(ROWS)[rows], copy)
            crafted.append(rand_fgsm(model, images[rows], labels, epsilon=EPSILON, alpha=ALPHA, noise=drawn))
    return torch.cat(crafted).view(COPIES, *images.shape)


@pytest.fixture(scope="module")
def rows_of(images):
    """Tell which rows the images of a batch are."""
    known = {image.numpy().tobytes(): row for row, image in enumerate(images)}
    assert len(known) == ROWS
    return lambda batch: [known[image.numpy().tobytes()] for image in batch]


def test_the_copies_that_are_crafted_live_differ(images, live):
    assert float((live - images).abs().max()) <= EPSILON + 1e-6
    assert all(not torch.equal(live[0, row], live[1, row]) for row in range(ROWS))


@pytest.mark.parametrize("memory", [1 << 30, WINDOWS], ids=["resident", "windowed"])
def test_sign_loader_gives_what_is_crafted_live_another_copy_each_epoch(live, rows_of, memory):
    loader = gs.SignLoader(
        "data/npz.zarr", {"R": "signs/R.zarr"}, batch=50, epsilon=EPSILON, seed=7, live=False, memory=memory
    )
    for epoch in range(COPIES + 1):
        seen = []
        for batch in loader:
            rows = rows_of(batch.images)
            assert torch.equal(batch.perturbed(), live[(7 + epoch) % COPIES, rows])
            seen += rows
        assert sorted(seen) == list(range(ROWS))


def test_crops_and_mirrorings_move_the_random_step_too(live, rows_of):
    options = {"batch": 50, "epsilon": EPSILON, "seed": 7, "live": False}
    plain, moved = (
        gs.SignLoader("data/npz.zarr", {"R": "signs/R.zarr"}, **options, **views)
        for views in ({}, {"padding": 3, "flip": True})
    )
    for step, (one, other) in enumerate(zip(plain, moved, strict=True)):
        views = Augmentation(3, True).draw(50, seed=7, step=step)
        assert torch.equal(other.perturbed(), views.apply(live[7 % COPIES, rows_of(one.images)]))


@pytest.fixture
def base(images):
    return images, gs.open_dataset("data/npz.zarr").train.read_labels()


@pytest.mark.parametrize("workers", [0, 2])
def test_signed_dataset_gives_what_is_crafted_live_another_copy_each_epoch(base, live, rows_of, workers):
    signed = gs.SignedDataset(base, "signs/R.zarr")
    loader = DataLoader(signed, batch_size=50, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(COPIES + 1):
        signed.set_epoch(epoch)
        seen = []
        for pixels, _, signs in loader:
            rows = rows_of(pixels)
            assert torch.equal(signed.perturb(pixels, signs, EPSILON), live[epoch % COPIES, rows])
            seen += rows
        assert sorted(seen) == list(range(ROWS))


def test_transforms_of_torchvision_move_the_random_step_too(base, live):
    transforms = pytest.importorskip("torchvision.transforms.v2")
    augment = transforms.Compose([transforms.Pad(3), transforms.RandomHorizontalFlip(1.0)])
    pixels, _, signs = default_collate([gs.SignedDataset(base, "signs/R.zarr", augment=augment)[row] for row in (5, 9)])
    signed = gs.SignedDataset(base, "signs/R.zarr")
    assert torch.equal(signed.perturb(pixels, signs, EPSILON), augment(live[0, [5, 9]]))


def test_signs_are_not_unpacked_without_their_random_step(base):
    signed = gs.SignedDataset(base, "signs/R.zarr")
    pixels, _, signs = default_collate([signed[0]])
    with pytest.raises(gs.GradshardError, match="begin after a random step, which unpacking would leave out"):
        signed.unpack(signs, pixels)
    with pytest.raises(gs.GradshardError, match=r"epsilon is 0\.05, but the store's attack steps 0\.05 at random"):
        signed.perturb(pixels, signs, ALPHA)


def test_a_copy_that_was_chosen_stays(base, live, rows_of):
    chosen = gs.open_signs("signs/R.zarr").of_copy(1)
    signed = gs.SignedDataset(base, chosen)
    signed.set_epoch(2)
    pixels, _, signs = default_collate([signed[row] for row in range(20)])
    assert torch.equal(signed.perturb(pixels, signs, EPSILON), live[1, :20])
    options = {"batch": 50, "epsilon": EPSILON, "live": False}
    loader = gs.SignLoader("data/npz.zarr", {"R": chosen}, **options)
    for _ in range(2):
        assert all(torch.equal(batch.perturbed(), live[1, rows_of(batch.images)]) for batch in loader)
    in_turn = gs.SignLoader("data/npz.zarr", {"R": "signs/R.zarr"}, **options)
    with pytest.raises(gs.GradshardError, match="another copies"):
        in_turn.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("memory", ["1 GiB", WINDOWS], ids=["resident", "windowed"])
def test_train_robust_trains_on_what_is_crafted_live_another_copy_each_epoch(
    project, live, rows_of, monkeypatch, memory
):
    """Seen from within the model: each step passes the clean images, and those that are perturbed, as one batch."""
    monkeypatch.setattr(Passes, "logits", noting(Passes.logits, passed := []))
    project.edit(lambda params: params["streaming"].update(memory=memory))
    assert call(monkeypatch, "train-robust", "stored", "--seed", "10") == 0
    steps = -(-ROWS // 32)
    assert len(passed) == COPIES * steps
    for step, both in enumerate(passed):
        clean, perturbed = both.chunk(2)
        assert torch.equal(perturbed, live[(10 + step // steps) % COPIES, rows_of(clean)])


def noting(method, passed):
    def noted(self, images, part, **options):
        passed.append(images.detach().clone())
        return method(self, images, part, **options)

    return noted


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epsilon": ALPHA}, r"epsilon is 0\.05, but source R steps 0\.05 at random before it follows the signs"),
        ({"epsilon_law": "truncated_normal"}, "source R steps 0.05 at random .* that truncated_normal draws"),
    ],
    ids=["no epsilon left", "drawn epsilons"],
)
def test_an_epsilon_that_the_random_step_may_use_up_is_refused(change, told):
    with pytest.raises(gs.GradshardError, match=told):
        gs.SignLoader("data/npz.zarr", {"R": "signs/R.zarr"}, **{"batch": 50, "epsilon": EPSILON, **change})


def test_a_batch_of_the_models_own_turn_has_nothing_stored_to_be_perturbed_by():
    loader = gs.SignLoader("data/npz.zarr", {"R": "signs/R.zarr"}, batch=50, epsilon=EPSILON, schedule="rotate")
    first, second, *_ = loader
    assert second.perturbed().shape == second.images.shape
    with pytest.raises(gs.GradshardError, match="it is the turn of the model itself to craft"):
        first.perturbed()


def test_on_held_back_rows_the_stored_attack_is_the_live_one(live, base):
    data, stores = gs.open_dataset("data/npz.zarr"), {"R": gs.open_signs("signs/R.zarr")}
    model = gs.load_model("models/static/A.safetensors", data)
    held = np.array([3, 50, 51, 207, 300, 301, 302, 599])
    judge = make_judge(HeldBackParams(rows=8, steps=1), held, InMemoryReader(data.train, stores), stores, EPSILON)
    found = judge(model, 1, last=True).transfer_error
    wrong = model(live[0, held]).argmax(1).numpy() != base[1][held]
    assert found == pytest.approx(wrong.mean())
    assert (judge.probed.random_steps[0].copy, judge.probed.rows) == (0, held.tolist())
