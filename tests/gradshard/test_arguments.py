"""Arguments of the library that are odd, meant or not: dtypes, seeds, words; and torch's own settings."""

import numpy as np
import pytest
import torch

import gradshard as gs
from gradshard.pipeline.models.precision import precision_context, settings_kept


@pytest.fixture
def batch(linear_model):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, 3, 4, generator=generator)
    return linear_model(classes=5).eval(), images, torch.randint(0, 5, (6,), generator=generator)


@pytest.mark.parametrize("attack", [gs.fgsm, gs.rand_fgsm, gs.iterative_fgsm, gs.mi_fgsm, gs.pgd, gs.cw])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_examples_have_the_dtype_of_the_images(batch, attack, dtype):
    _, images, labels = batch
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)).to(dtype).eval()
    examples = attack(model, images.to(dtype), labels, epsilon=0.25)
    assert examples.dtype == dtype
    assert (examples - images.to(dtype)).abs().max() <= 0.25 + torch.finfo(dtype).eps


def test_a_seed_of_numpy_is_that_seed(batch):
    model, images, labels = batch
    one, other = (gs.pgd(model, images, labels, epsilon=0.2, seed=seed) for seed in (5, np.int64(5)))
    assert torch.equal(one, other)
    found = [gs.evaluate({"m": model}, images, labels, attacks=["pgd"], epsilon=0.2, seed=s) for s in (5, np.int64(5))]
    assert [result.correct.tolist() for result in found[0]] == [result.correct.tolist() for result in found[1]]


def test_in_inference_mode_no_gradient_can_be_taken_and_that_is_told(batch):
    model, images, labels = batch
    with (
        torch.inference_mode(),
        pytest.raises(gs.GradshardError, match="inference_mode leaves out: use torch"),
    ):
        gs.fgsm(model, images, labels, epsilon=0.2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"label": "least-likely"}, "label is 'least-likely': give one of predicted, true, least_likely"),
        ({"gradient": "exakt"}, "gradient is 'exakt': give one of exact, cross_entropy"),
    ],
)
def test_signs_from_elsewhere_are_stored_with_words_that_readers_know(
    small_dataset, linear_model, tmp_path, words, told
):
    signs = np.zeros((700, 784), dtype=np.int8)
    with pytest.raises(gs.GradshardError, match=told):
        gs.write_signs(tmp_path / "w.zarr", signs, small_dataset.train, model=linear_model(), name="w", **words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [{"seed": -1}, {"padding": -1}])
def test_a_loader_refuses_numbers_below_0(small_dataset, small_store, numbers):
    ((name, number),) = numbers.items()
    with pytest.raises(gs.GradshardError, match=f"{name} is {number}: give 0 or more"):
        gs.SignLoader(small_dataset.train, {"A": small_store}, batch=10, epsilon=0.1, **numbers)


def test_an_audit_refuses_a_seed_below_0(small_dataset, small_store, linear_model):
    with pytest.raises(gs.GradshardError, match="seed is -1: give 0 or more, or None"):
        gs.audit(small_store, small_dataset.train, linear_model(), seed=-1)


def test_torchs_own_arithmetic_is_what_it_was_after_a_call():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    with settings_kept():
        conv.fp32_precision = "ieee"
    assert conv.fp32_precision == before
    with precision_context("fp32", torch.device("cpu")):
        assert conv.fp32_precision == before
    assert torch.backends.cudnn.allow_tf32 in (True, False), "which torch refuses to tell once both ways were used"


def test_a_model_is_loaded_for_an_opened_dataset_and_not_for_its_path(small_dataset_path):
    with pytest.raises(gs.GradshardError, match="dataset is a str: give what open_dataset returns"):
        gs.load_model("w.safetensors", str(small_dataset_path))


@pytest.fixture
def digits_model():
    return gs.create_model("D", (1, 28, 28), 10).eval()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda d, s, m: gs.compute_signs(d.train, m, "s"),
            "model is a Split, not a torch.nn.Module: give the arguments",
        ),
        (lambda d, s, m: gs.compute_signs(m, "s", d.train), "the store's place is a Split: give the path of a folder"),
        (
            lambda d, s, m: gs.audit(s, m, d.train),
            "model is a Split, not a torch.nn.Module: give the arguments in their",
        ),
        (
            lambda d, s, m: gs.audit(m, d.train, s),
            "store is a Sequential: give an open store, or the path or URL of one",
        ),
        (
            lambda d, s, m: gs.SignLoader(d, s.where, batch=4, epsilon=0.1),
            "stores is a str: give a mapping of names to",
        ),
        (
            lambda d, s, m: gs.SignLoader(d, [s], batch=4, epsilon=0.1),
            "stores is a list: give a mapping of names to sto",
        ),
        (
            lambda d, s, m: gs.SignLoader(m, {"A": s}, batch=4, epsilon=0.1),
            "dataset is a Sequential, not a prepared data",
        ),
        (
            lambda d, s, m: gs.SignLoader(d, {"self": s}, batch=4, epsilon=0.1),
            "a store is named self, as the trained model is: give it another name",
        ),
        (
            lambda d, s, m: gs.SignedDataset(rows_of(d), ["a", "b"]),
            "a store is a list, not a path, a URL or an open sto",
        ),
        (lambda d, s, m: gs.SignedDataset(rows_of(d), s, check="smaple"), "check is 'smaple': give whole or sample"),
    ],
)
def test_arguments_of_the_wrong_kind_are_told_in_one_sentence(small_dataset, small_store, digits_model, call, told):
    with pytest.raises(gs.GradshardError, match=f"^{told}"):
        call(small_dataset, small_store, digits_model)


def rows_of(dataset):
    return dataset.train.take_images(np.arange(700)), dataset.train.read_labels()


def test_a_store_is_audited_by_its_path(small_dataset, small_store, digits_model):
    by_path, opened = (
        gs.audit(store, small_dataset.train, digits_model, rows=5, seed=0) for store in (small_store.where, small_store)
    )
    assert str(by_path) == str(opened)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"sources": ["m"]}, r"sources is a list: give a mapping of names to modules, as {'mine': model}$"),
        ({"attacks": "pgd"}, r"attacks is 'pgd': give a list of names, such as \['pgd'\]$"),
    ],
)
def test_models_have_names_and_attacks_are_listed(batch, asked, told):
    model, images, labels = batch
    for call in (
        lambda: gs.evaluate({"m": model}, images, labels, **{"epsilon": 0.1, "attacks": ["pgd"], **asked}),
        lambda: gs.examine(model, images, labels, epsilon=0.1, **asked),
    ):
        with pytest.raises(gs.GradshardError, match=told):
            call()
    with pytest.raises(gs.GradshardError, match="targets is a LinearModel: give a mapping of names to modules"):
        gs.evaluate(model, images, labels, attacks=["pgd"], epsilon=0.1)
