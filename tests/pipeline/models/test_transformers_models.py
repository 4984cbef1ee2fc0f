"""``hf:FOLDER``: what is built of a folder that transformers wrote, and what is said of folders that do not serve."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from gradshard.pipeline import models
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from tests.helpers.library_weights import transformers_folder

transformers = pytest.importorskip("transformers")
SHAPE = (1, 28, 28)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """In a folder of its own, without a hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(params=["resnet", "vit"])
def kind(request):
    return request.param


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_folders_weights_give_transformers_own_logits(tmp_path, kind):
    theirs = transformers_folder(tmp_path / "net", kind)
    model = models.pretrained("hf:net", SHAPE, 10, seed=1).eval()
    x = images(4, *SHAPE)
    expected = theirs(pixel_values=(x - 0.2) / 0.4).logits
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert models.pretrained_classes("hf:net") == 10


def test_without_its_weights_a_model_follows_the_seed(tmp_path, kind):
    transformers_folder(tmp_path / "net", kind)
    one, same, other = (models.create_model("hf:net", SHAPE, 7, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.items())
    assert any(not torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert one[next(key for key in one if "classifier" in key and key.endswith("weight"))].shape[0] == 7


def test_a_classifier_for_other_classes_is_new_and_follows_the_seed(tmp_path, kind):
    theirs = transformers_folder(tmp_path / "net", kind).state_dict()
    one, same, other = (models.pretrained("hf:net", SHAPE, 7, seed=seed).model.model.state_dict() for seed in (1, 1, 2))
    new = [key for key in theirs if "classifier" in key]
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in one.items() if key not in new)
    assert all(torch.equal(one[key], same[key]) for key in new)
    weight = next(key for key in new if key.endswith("weight"))
    assert not torch.equal(one[weight], other[weight])


def test_a_model_comes_back_from_its_file_and_from_transformers_own(tmp_path, kind):
    theirs = transformers_folder(tmp_path / "net", kind).state_dict()
    model = models.pretrained("hf:net", SHAPE, 10, seed=1).eval()
    checkpoints.save(tmp_path / "w.safetensors", model.state_dict(), {"architecture": "hf:net"})
    tensors, _ = checkpoints.load(tmp_path / "w.safetensors")
    x = images(4, *SHAPE)
    assert torch.equal(models.load_frozen("hf:net", SHAPE, 10, tensors, where="w")(x), model(x))
    again = models.create_model("hf:net", SHAPE, 10, seed=2).eval()
    assert models.load_weights(again, theirs, where="theirs.pt") == []
    assert torch.equal(again(x), model(x))


def test_grey_images_are_given_to_all_three_channels(tmp_path):
    transformers_folder(tmp_path / "net", "resnet", channels=3, image_mean=[0.1, 0.5, 0.9])
    model = models.pretrained("hf:net", SHAPE, 10, seed=1).eval()
    x = images(4, *SHAPE)
    torch.testing.assert_close(model(x), model(x.expand(-1, 3, -1, -1)))
    assert model.mean.ravel().tolist() == pytest.approx([0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    ("processor", "change"),
    [
        ({"do_normalize": False}, lambda x: x),
        ({"do_rescale": False}, lambda x: (255 * x - 0.2) / 0.4),
        ({"do_rescale": False, "do_normalize": False}, lambda x: 255 * x),
        ({"rescale_factor": 1 / 127.5}, lambda x: (2 * x - 0.2) / 0.4),
        ({"image_mean": 0.1, "image_std": 0.5}, lambda x: (x - 0.1) / 0.5),
    ],
)
def test_what_an_image_processor_does_to_pixels_is_done_inside(tmp_path, processor, change):
    theirs = transformers_folder(tmp_path / "net", "vit")
    file = tmp_path / "net/preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | processor))
    model = models.pretrained("hf:net", SHAPE, 10, seed=1).eval()
    x = images(4, *SHAPE)
    torch.testing.assert_close(model(x), theirs(pixel_values=change(x)).logits, rtol=1e-4, atol=1e-4)


def test_a_models_origin_follows_its_configuration_and_normalisation(tmp_path):
    found = []
    for folder, processor in (("a", {}), ("b", {}), ("c", {"image_mean": [0.3]})):
        transformers_folder(tmp_path / folder, "resnet", **processor)
        found.append(models.provenance(f"hf:{folder}"))
    assert found[0] == found[1]
    assert found[0]["config"] != found[2]["config"]
    assert found[0]["transformers"] == transformers.__version__


def without(name):
    return lambda folder: (folder / name).unlink()


def pickled(folder):
    """The same weights as a pickle, which is how transformers once kept them."""
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def configured(**values):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def lacking(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["vit.layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


CODE = "open('ran', 'w').close()"


def code(folder):
    (folder / "mine.py").write_text(CODE)
    names = {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"}
    configured(model_type="mine", auto_map=names)(folder)


@pytest.mark.parametrize(
    ("change", "shape", "sentence"),
    [
        (without("config.json"), SHAPE, r"gives no config\.json of a model that transformers knows .*save_pretrained"),
        (without("preprocessor_config.json"), SHAPE, "gives no image processor, which says how the model normalises"),
        (without("model.safetensors"), SHAPE, "gives no weights in safetensors"),
        (pickled, SHAPE, "gives no weights in safetensors"),
        (code, SHAPE, r"gives no config\.json of a model that transformers knows"),
        (configured(model_type="bert"), SHAPE, "gives no weights in safetensors|gives no image classifier"),
        (lacking, SHAPE, r"lack 1 tensors of the model .* such as vit\.layernorm\.weight"),
        (configured(hidden_size=64), SHAPE, "or have them in another shape, such as "),
        (
            lambda folder: None,
            (1, 35, 35),
            r"have them in another shape, such as vit\.embeddings\.position.* 28 pixels",
        ),
        (lambda folder: None, (1, 30, 30), "30x30 into patches of 7x7 and ignores the 116 pixels"),
        (lambda folder: None, (3, 28, 28), "takes images of 1 channels, but the dataset's have 3"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:20],
)
def test_a_folder_that_does_not_serve_is_one_sentence(tmp_path, change, shape, sentence):
    transformers_folder(tmp_path / "net", "vit")
    change(tmp_path / "net")
    with pytest.raises(GradshardError, match=sentence) as caught:
        models.pretrained("hf:net", shape, 10, seed=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "nobody/nothing",
            "there is no folder nobody/nothing here, so it was looked for on the hub: name a folder, or",
        ),
        ("./nothing/here", "there is no folder nothing/here: name that of a model's config"),
        ("a" * 98, "longer than 97 characters"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(name, sentence):
    with pytest.raises(GradshardError, match=sentence) as caught:
        models.create_model(f"hf:{name}", SHAPE, 10, seed=1)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GradshardError, match=r"needs the package transformers: pip install 'gradshard\[hf\]'"):
        models.create_model("hf:net", SHAPE, 10, seed=1)
