"""``torchvision:NAME``: what is built, how it normalises, whose weights it takes, and what is said without them."""

import http.server
import sys
import threading

import pytest
import torch
import torchvision

from gradshard.pipeline import models
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from tests.helpers.library_weights import torch_hub_file

TINY = "shufflenet_v2_x0_5"
SHAPE = (3, 32, 32)


def test_a_model_normalises_as_its_weights_do_and_is_torchvisions_otherwise():
    model = models.create_model(f"torchvision:{TINY}", SHAPE, 7, seed=3).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = torchvision.models.get_model(TINY, num_classes=7).eval()
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    config = torchvision.models.get_model_weights(TINY).DEFAULT.transforms()
    normalised = torchvision.transforms.functional.normalize(images, config.mean, config.std)
    torch.testing.assert_close(model(images), theirs(normalised), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_weights_that_a_name_has_say_how_it_normalises():
    usual, other = (models.create_model(f"torchvision:efficientnet_v2_{size}", SHAPE, 5, seed=0) for size in "sl")
    assert usual.mean.ravel().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert other.mean.ravel().tolist() == [0.5] * 3
    named = models.create_model("torchvision:resnet50.IMAGENET1K_V1", SHAPE, 5, seed=0)
    assert named(torch.rand(2, *SHAPE)).shape == (2, 5)


def test_grey_images_are_given_to_all_three_channels():
    model = models.create_model(f"torchvision:{TINY}", (1, 28, 28), 5, seed=0).eval()
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(images), model(images.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_models_with_further_heads_give_their_logits_alone(name):
    model = models.create_model(f"torchvision:{name}", (3, 75, 75), 5, seed=0).train()
    assert model(torch.rand(2, 3, 75, 75)).shape == (2, 5)
    assert model.model.transform_input


@pytest.mark.parametrize("name", [TINY, "densenet121", "googlenet"])
def test_pretrained_weights_come_from_torchs_cache(monkeypatch, tmp_path, name):
    _, state = torch_hub_file(monkeypatch, tmp_path, name)
    model = models.pretrained(f"torchvision:{name}", (3, 64, 64), 1000, seed=1)
    found = model.model.state_dict()
    assert {f"{key}" for key in found} <= set(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.items())


def test_weights_with_the_old_names_of_densenet_are_taken(monkeypatch, tmp_path):
    file, state = torch_hub_file(monkeypatch, tmp_path, "densenet121")
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, file)
    file.rename(tmp_path / "hub/checkpoints/densenet121.pth")
    weights = torchvision.models.get_model_weights("densenet121").DEFAULT
    monkeypatch.setattr(weights.value, "url", "https://nowhere/densenet121.pth")
    found = models.pretrained("torchvision:densenet121", (3, 64, 64), 1000, seed=1).model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.items())


def test_a_classifier_for_other_classes_is_new_and_follows_the_seed(monkeypatch, tmp_path):
    _, state = torch_hub_file(monkeypatch, tmp_path, TINY)
    one, same, other = (models.pretrained(f"torchvision:{TINY}", SHAPE, 7, seed=seed) for seed in (1, 1, 2))
    parts = [model.model.state_dict() for model in (one, same, other)]
    assert all(torch.equal(parts[0][key], state[key]) for key in state if not key.startswith("fc."))
    assert parts[0]["fc.weight"].shape == (7, 1024)
    assert torch.equal(parts[0]["fc.weight"], parts[1]["fc.weight"])
    assert not torch.equal(parts[0]["fc.weight"], parts[2]["fc.weight"])


def test_a_file_in_the_cache_that_is_another_is_refused(monkeypatch, tmp_path):
    file, state = torch_hub_file(monkeypatch, tmp_path, TINY)
    torch.save({key: tensor + 1 for key, tensor in state.items()}, file)
    with pytest.raises(GradshardError, match=r"is not the weights of torchvision:shufflenet_v2_x0_5 \(SHA-256"):
        models.pretrained(f"torchvision:{TINY}", SHAPE, 1000, seed=1)


def test_weights_are_fetched_once_and_held_against_the_hash_in_their_name(monkeypatch, tmp_path):
    file, state = torch_hub_file(monkeypatch, tmp_path / "served", TINY)
    asked, content = [], [file.read_bytes()]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content[0])))
            self.end_headers()
            self.wfile.write(content[0])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        weights = torchvision.models.get_model_weights(TINY).DEFAULT
        monkeypatch.setattr(weights.value, "url", f"http://127.0.0.1:{server.server_port}/{file.name}")
        whole, content[0] = content[0], b"something else"
        with pytest.raises(GradshardError, match=r"could not be fetched \(invalid hash value"):
            models.pretrained(f"torchvision:{TINY}", SHAPE, 1000, seed=1)
        content[0] = whole
        for _ in range(2):
            model = models.pretrained(f"torchvision:{TINY}", SHAPE, 1000, seed=1)
        server.shutdown()
        thread.join()
    assert len(asked) == 2
    assert torch.equal(model.model.state_dict()["fc.weight"], state["fc.weight"])


def test_without_a_network_one_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.get_model_weights(TINY).DEFAULT
    monkeypatch.setattr(weights.value, "url", "http://127.0.0.1:9/weights-00000000.pth")
    with pytest.raises(GradshardError, match=r"could not be fetched .*refused.*: check the network and try") as caught:
        models.pretrained(f"torchvision:{TINY}", SHAPE, 1000, seed=1)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_of_image_are_refused(monkeypatch, tmp_path):
    torch_hub_file(monkeypatch, tmp_path, "vit_b_32")
    with pytest.raises(GradshardError, match=r"do not fit the model for these images .*pos_embedding.*224x224 pixels"):
        models.pretrained("torchvision:vit_b_32", (3, 64, 64), 1000, seed=1)


def test_a_model_comes_back_from_its_file(tmp_path):
    name = f"torchvision:{TINY}"
    model = models.create_model(name, SHAPE, 7, seed=1)
    model(torch.rand(8, *SHAPE))
    checkpoints.save(tmp_path / "w.safetensors", model.state_dict(), {"architecture": name})
    tensors, _ = checkpoints.load(tmp_path / "w.safetensors")
    restored = models.load_frozen(name, SHAPE, 7, tensors, where="w")
    images = torch.rand(4, *SHAPE)
    assert torch.equal(restored(images), model.eval()(images))
    theirs = torchvision.models.get_model(TINY, num_classes=7).state_dict()
    assert models.load_weights(restored, theirs, where="c.pt") == []


@pytest.mark.parametrize(
    ("architecture", "shape", "sentence"),
    [
        ("torchvision:resnet81", SHAPE, r"has no classifier resnet81 \(did you mean resnet\d+\?\)"),
        ("torchvision:fcn_resnet50", SHAPE, "has no classifier fcn_resnet50"),
        ("torchvision:", SHAPE, "has no classifier "),
        ("torchvision:resnet18.V9", SHAPE, r"no weights by the name resnet18\.V9: there are resnet18\.IMAGENET1K_V1"),
        ("torchvision:resnet18", (4, 32, 32), "takes images of 3 channels, or grey ones, but the dataset's have 4"),
        ("torchvision:alexnet", SHAPE, r"does not take images of 3x32x32 .*made for 224x224 pixels; choose another"),
        ("torchvision:vit_b_32", (3, 40, 40), r"torchvision cannot build vit_b_32 for images of 3x40x40 \("),
        ("torchvision:swin_t", (3, 38, 38), "38x38 into patches of 4x4 and ignores the 148 pixels that are left over"),
    ],
)
def test_names_and_images_that_do_not_fit_are_refused(architecture, shape, sentence):
    with pytest.raises(GradshardError, match=sentence):
        models.create_model(architecture, shape, 7, seed=0)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(GradshardError, match=r"needs the package torchvision: pip install 'gradshard\[torchvision\]'"):
        models.create_model("torchvision:resnet18", SHAPE, 7, seed=0)


def test_the_origin_of_a_model_names_torchvisions_version():
    assert models.provenance("torchvision:resnet18") == {"torchvision": torchvision.__version__.partition("+")[0]}
    assert models.pretrained_classes("torchvision:resnet18") == 1000
