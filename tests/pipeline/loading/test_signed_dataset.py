"""Images, labels and signs of anyone's dataset: for every sampler, in every number of processes, cropped together."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, default_collate

from gradshard.pipeline.loading import SignedDataset, compute_signs, perturb
from gradshard.pipeline.loading.planes_file import planes_file
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from tests.helpers.mounts import run_on_disk
from tests.helpers.servers import plain_http
from tests.pipeline.loading.conftest import Digits, signs_of

older = pytest.importorskip("torchvision.transforms")
transforms = pytest.importorskip("torchvision.transforms.v2")


@pytest.fixture
def signed(base, store):
    return SignedDataset(base, store)


def test_a_row_is_the_datasets_image_and_label_and_the_stores_signs(signed, base, store):
    assert len(signed) == 700
    for row in (0, 345, 699, -1):
        image, label, signs = signed[row]
        expected, number = base[row % 700]
        assert torch.equal(image, expected)
        assert label == number
        assert torch.equal(signs, torch.from_numpy(store.read(row % 700, row % 700 + 1)[0]))
    with pytest.raises(IndexError):
        signed[700]


def test_a_batch_is_unpacked_into_the_signs_of_its_rows(signed, store):
    images, labels, planes = default_collate([signed[row] for row in (5, 3, 600)])
    assert planes.dtype == torch.uint8
    assert labels.dtype == torch.int64
    signs = signed.unpack(planes, images)
    assert np.array_equal(signs.numpy(), np.stack([signs_of(store, row) for row in (5, 3, 600)]))
    assert torch.equal(perturb(images, signs, 0.3), (images + 0.3 * signs).clamp(0, 1))


def test_a_store_towards_the_least_likely_label_is_unpacked_the_way_to_step(model, base):
    store = compute_signs(model, base, "signs/least.zarr", label="least_likely")
    images, _, planes = default_collate([SignedDataset(base, store)[0]])
    assert np.array_equal(SignedDataset(base, store).unpack(planes, images)[0].numpy(), -signs_of(store, 0))


_PLANES = """
import os, sys
from pathlib import Path
from gradshard.pipeline.loading.planes_file import planes_file
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.sign_reader import open_store
try:
    planes_file(open_store(Path(sys.argv[1])), Path("cache"))
except GradshardError as error:
    print(error)
print(*(name for name in os.listdir("cache") if not name.endswith(".lock")))
"""


def test_a_disk_too_small_for_the_signs_is_told_and_nothing_is_left_on_it(small_store, tmp_path):
    place = str(Path(small_store.where).resolve())
    done = run_on_disk("size=100k", tmp_path / "disk", sys.executable, "-c", _PLANES, place)
    assert (done.returncode, done.stderr) == (0, "")
    sentence, left = done.stdout.splitlines()
    assert sentence.startswith("no space left on the disk for cache/planes-")
    assert sentence.endswith(".bin, which takes 137,200 bytes: free some, or name a folder on another disk by cache=")
    assert left == ""


def test_what_a_killed_process_left_of_the_signs_is_removed(small_store, tmp_path):
    name = f"planes-{small_store.manifest.content}.bin"
    for left in (f".{name}.abc.tmp", ".planes-of-another-store.bin.abc.tmp"):
        (tmp_path / left).write_bytes(b"half")
    assert np.array_equal(np.fromfile(planes_file(small_store, tmp_path), np.uint8), small_store.load().ravel())
    assert [path.name for path in tmp_path.glob(".planes-*")] == [".planes-of-another-store.bin.abc.tmp"]


def test_several_stores_give_a_mapping(base, store, signed):
    both = SignedDataset(base, {"A": "signs/D.zarr", "B": store})
    images, _, planes = default_collate([both[row] for row in range(4)])
    assert planes.keys() == {"A", "B"}
    assert torch.equal(planes["A"], planes["B"])
    assert both.unpack(planes["A"], images, "A").shape == images.shape
    with pytest.raises(GradshardError, match="no store 'C': name one of A, B"):
        both.unpack(planes["A"], images, "C")


def seen(loader, signed):
    """Every row that a loader gives, as bytes: labels and signs belong to the images."""
    rows = []
    for images, labels, planes in loader:
        rows += [
            (image.numpy().tobytes(), int(label), plane.numpy().tobytes())
            for image, label, plane in zip(images, labels, planes, strict=True)
        ]
    return sorted(rows)


@pytest.fixture
def everything(signed):
    return seen(DataLoader(signed, batch_size=64), signed)


@pytest.mark.parametrize(
    ("workers", "context"),
    [(0, None), (2, "fork"), (4, "fork"), (2, "spawn"), pytest.param(4, "spawn", marks=pytest.mark.slow)],
)
def test_workers_give_each_row_once_an_epoch(signed, everything, workers, context):
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        signed, batch_size=64, shuffle=True, generator=generator, num_workers=workers, multiprocessing_context=context
    )
    assert len(set(everything)) == 700
    assert seen(loader, signed) == everything


def test_the_rest_of_an_epoch_is_the_same_with_another_number_of_workers(signed):
    sampler = RandomSampler(signed, generator=torch.Generator().manual_seed(5))
    order = list(BatchSampler(sampler, 64, drop_last=False))
    whole, rest = (
        [*DataLoader(signed, batch_sampler=part, num_workers=workers)] for part, workers in ((order, 0), (order[5:], 2))
    )
    assert len(rest) == 6
    assert all(
        torch.equal(a, b) for one, other in zip(whole[5:], rest, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_two_ranks_share_the_rows(signed, everything):
    found = []
    for rank in range(2):
        sampler = DistributedSampler(signed, num_replicas=2, rank=rank, shuffle=True, seed=4)
        found += seen(DataLoader(signed, batch_size=50, sampler=sampler), signed)
    assert sorted(found) == everything


def test_it_travels_as_the_names_of_files(signed):
    signed[0]
    content = pickle.dumps(signed._copies)
    assert len(pickle.dumps(signed)) - len(pickle.dumps(signed._rows)) < 2000 + len(content)
    assert torch.equal(pickle.loads(pickle.dumps(signed))[5][2], signed[5][2])


def test_a_store_at_a_url_is_read_there(tmp_path, base, store, signed):
    with plain_http(tmp_path / "served") as server:
        shutil.copytree("signs/D.zarr", server.folder / "D.zarr")
        remote = SignedDataset(base, {"D": f"{server.url}/D.zarr"}, cache="elsewhere")
        assert all(torch.equal(remote[row][2]["D"], signed[row][2]) for row in (0, 300, 699))


def test_pictures_come_as_tensors_of_bytes(rows, store):
    pictures = [(Image.fromarray(i[0]), int(k)) for i, k in zip(*rows, strict=True)]
    image, _, _ = SignedDataset(pictures, store)[3]
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), rows[0][3])


def unpacked(signed, row):
    image, _, planes = signed[row]
    return image, torch.from_numpy(bitplanes.unpack(planes.numpy()[None], image.numel())).view(image.shape)


def test_what_was_cropped_and_flipped_is_the_crop_of_what_was_stored(base, rows, store):
    augment = transforms.Compose([transforms.RandomCrop(28, padding=4), transforms.RandomHorizontalFlip()])
    signed = SignedDataset(base, store, augment=augment)
    torch.manual_seed(0)
    moved = 0
    for row in range(60):
        image, signs = unpacked(signed, row)
        stored = np.pad(signs_of(store, row), ((0, 0), (4, 4), (4, 4)))
        pixels = np.pad(rows[0][row], ((0, 0), (4, 4), (4, 4))) / np.float32(255)
        found = [
            (down, right, flip)
            for down in range(9)
            for right in range(9)
            for flip in (1, -1)
            if np.array_equal(signs.numpy(), stored[:, down : down + 28, right : right + 28][:, :, ::flip])
        ]
        assert len(found) == 1
        down, right, flip = found[0]
        assert np.array_equal(image.numpy(), pixels[:, down : down + 28, right : right + 28][:, :, ::flip])
        moved += found[0] != (4, 4, 1)
    assert moved > 50


def test_a_smaller_crop_is_packed_in_its_own_shape(base, store):
    signed = SignedDataset(base, store, augment=transforms.CenterCrop(20))
    images, _, planes = default_collate([signed[row] for row in range(3)])
    assert images.shape == (3, 1, 20, 20)
    assert np.array_equal(signed.unpack(planes, images)[2].numpy(), signs_of(store, 2)[:, 4:24, 4:24])


def test_changes_of_colour_leave_signs_alone(base, store):
    augment = transforms.Compose([transforms.ColorJitter(brightness=0.5), transforms.GaussianBlur(3)])
    image, signs = unpacked(SignedDataset(base, store, augment=augment), 2)
    assert not torch.equal(image, base[2][0])
    assert np.array_equal(signs.numpy(), signs_of(store, 2))


@pytest.mark.parametrize("fill", [1, 0.5])
def test_outside_of_the_image_signs_are_0_whatever_colour_it_is_padded_by(base, store, fill):
    image, signs = unpacked(SignedDataset(base, store, augment=transforms.Pad(3, fill=fill)), 2)
    assert image[0, 0, 0] == fill
    assert np.array_equal(signs.numpy(), np.pad(signs_of(store, 2), ((0, 0), (3, 3), (3, 3))))


@pytest.mark.parametrize(
    ("augment", "told"),
    [
        (transforms.RandomResizedCrop(28), "resized_crop, which mixes pixels"),
        (transforms.Resize(32), "resize, which mixes pixels"),
        (transforms.RandomRotation(10), "rotate, which mixes pixels"),
        (transforms.RandomAffine(10), "affine, which mixes pixels"),
        (transforms.RandomPerspective(p=1), "perspective, which mixes pixels"),
        (transforms.ElasticTransform(), "elastic, which mixes pixels"),
        (transforms.RandomInvert(p=1), "invert, which turns pixels round"),
        (transforms.RandAugment(), "RandAugment, which takes no masks beside an image"),
        (transforms.TrivialAugmentWide(), "TrivialAugmentWide, which takes no masks beside an image"),
        (transforms.Grayscale(3), "changed the image's shape and not that of its signs"),
        (transforms.Lambda(lambda values: values * 3 % 5), "made other values of them"),
        (transforms.Normalize([0.13], [0.31]), r"pixels outside of \[0, 1\], as a normalisation does"),
        (older.RandomHorizontalFlip(), r"does not take a pair .*: use transforms of torchvision\.transforms\.v2"),
        (older.Compose([older.RandomCrop(28, 4)]), "does not take a pair"),
        (transforms.ToPILImage(), "turns the image into Image, in which"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_transform_that_means_nothing_for_signs_is_refused(base, store, augment, told):
    with pytest.raises(GradshardError, match=told):
        SignedDataset(base, store, augment=augment)[0]


def test_channels_that_change_places_take_their_signs_along(digits, model):
    colours = np.repeat(digits["train"][0][:20], 3, axis=1) // np.array([1, 2, 3], dtype=np.uint8)[:, None, None]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 784, 10)).eval()
    base = Digits(colours, digits["train"][1][:20])
    store = compute_signs(net, base, "signs/colour.zarr")
    plain, mixed = (
        unpacked(SignedDataset(base, store, augment=augment), 7)
        for augment in (None, transforms.RandomChannelPermutation())
    )
    order = [next(c for c in range(3) if torch.equal(mixed[0][place], plain[0][c])) for place in range(3)]
    assert order != [0, 1, 2]
    assert torch.equal(mixed[1], plain[1][order])


def test_the_number_of_a_row_may_be_a_tensor_and_stays_what_it_is(signed):
    row = torch.tensor(-3)
    assert torch.equal(signed[row][0], signed[len(signed) - 3][0])
    assert row == -3


def test_processes_that_read_leave_torchs_random_numbers_alone(model, rows, base):
    states = []
    for target in ("signs/new.zarr", "signs/new.zarr"):
        torch.manual_seed(0)
        store = compute_signs(model, base, target, workers=2)
        SignedDataset(base, store, workers=2)
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    assert all(torch.equal(state, torch.get_rng_state()) for state in states)


def test_bytes_are_not_perturbed_as_if_they_lay_between_0_and_1(rows, store):
    signed = SignedDataset(rows, store)
    images, _, planes = default_collate([signed[0]])
    with pytest.raises(GradshardError, match=r"images of torch\.uint8 cannot be perturbed"):
        perturb(images, signed.unpack(planes, images), 0.3)


def test_grey_images_without_a_channel_get_one(rows, store):
    signed = SignedDataset((torch.from_numpy(rows[0][:, 0]), rows[1]), store, augment=transforms.CenterCrop(28))
    image, signs = unpacked(signed, 3)
    assert np.array_equal(image.numpy(), rows[0][3])
    assert np.array_equal(signs.numpy(), signs_of(store, 3))


def test_without_torchvision_only_augmenting_needs_it(base, store, monkeypatch):
    monkeypatch.delitem(sys.modules, "gradshard.pipeline.loading.sign_tensors", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    SignedDataset(base, store)[0]
    with pytest.raises(GradshardError, match="needs the package torchvision"):
        SignedDataset(base, store, augment=lambda pair: pair)[0]


def test_a_damaged_store_is_refused_before_anything_is_read_of_it(base, store):
    file = Path("signs/D.zarr/signs/c/3/0/0")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(GradshardError, match="is damaged"):
        SignedDataset(base, store)


@pytest.mark.parametrize("size", [0, 17, 100 * 196])
def test_a_file_of_signs_that_lost_its_end_is_made_again(base, store, signed, size):
    (file,) = Path(".partial/loading").glob("planes-*.bin")
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    assert torch.equal(SignedDataset(base, store)[699][2], torch.from_numpy(store.read(699, 700)[0]))
    assert file.read_bytes() == whole
