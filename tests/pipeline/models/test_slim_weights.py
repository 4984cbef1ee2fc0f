"""TF-slim's weights get timm's names: every tensor of the two architectures, and nothing else."""

import pytest
import torch

from gradshard.pipeline.models.slim_weights import convert_ported, convert_slim
from gradshard.storage.errors import GradshardError
from tests.helpers.slim_variables import slim_variables

timm = pytest.importorskip("timm")
NETS = {"InceptionV3": "inception_v3", "InceptionResnetV2": "inception_resnet_v2"}


def variables(net):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in slim_variables(net).items()}


@pytest.mark.parametrize("net", NETS)
def test_every_tensor_of_timms_model_is_there_in_its_shape(net):
    found = convert_slim(variables(net), where="x")
    with torch.device("meta"):
        wanted = timm.create_model(NETS[net]).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items() if not name.endswith("num_batches_tracked")}
    assert {name: tuple(tensor.shape) for name, tensor in found.tensors.items()} == shapes
    assert found.architecture.startswith(f"timm:{NETS[net]}.")
    assert found.remarks == ("without its auxiliary classifier", "without its class 0, the background")


def test_kernels_are_transposed_and_the_background_is_left_out():
    given = variables("InceptionV3")
    found = convert_slim(given, where="x").tensors
    kernel = given["InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5/weights"]
    assert torch.equal(found["Mixed_5c.branch5x5_2.conv.weight"], kernel.permute(3, 2, 0, 1))
    assert torch.equal(found["fc.bias"], given["InceptionV3/Logits/Conv2d_1c_1x1/biases"][1:])
    assert torch.equal(found["Conv2d_1a_3x3.bn.weight"], torch.ones(32))


def ported(given):
    """The names and shapes of MMdnn's model, which are those of TensorFlow's operations."""
    kinds = {
        "weights": "Conv2D.weight",
        "biases": "Conv2D.bias",
        "BatchNorm/beta": "BatchNorm_FusedBatchNorm.bias",
        "BatchNorm/moving_mean": "BatchNorm_FusedBatchNorm.running_mean",
        "BatchNorm/moving_variance": "BatchNorm_FusedBatchNorm.running_var",
    }
    state = {}
    for name, tensor in given.items():
        for kind, theirs in kinds.items():
            if name.endswith(f"/{kind}"):
                net, _, layer = name.removesuffix(f"/{kind}").partition("/")
                inner = "" if "Logits" in layer else f"{net}_"
                value = tensor if kind != "weights" else tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.t()
                state[f"{net}_{inner}{layer.replace('/', '_')}_{theirs}"] = value
    return state


@pytest.mark.parametrize("net", NETS)
def test_a_port_gives_the_tensors_of_its_original(net):
    given = variables(net)
    expected, found = convert_slim(given, where="x").tensors, convert_ported(ported(given), where="x").tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_weights_of_another_model_are_refused_in_one_sentence():
    with pytest.raises(GradshardError, match=r"^x does not hold TF-slim's weights of one of InceptionV3, "):
        convert_slim({"resnet_v2_50/conv1/weights": torch.rand(7, 7, 3, 64)}, where="x")


def test_a_layer_that_is_not_whole_is_named():
    given = variables("InceptionV3")
    del given["InceptionV3/Mixed_6b/Branch_0/Conv2d_0a_1x1/BatchNorm/moving_mean"]
    with pytest.raises(GradshardError, match=r"InceptionV3/Mixed_6b/Branch_0/Conv2d_0a_1x1 lacks its bn\.running_mean"):
        convert_slim(given, where="x")


def test_a_checkpoint_without_its_classifier_or_with_unknown_layers_is_refused_in_one_sentence():
    given = variables("InceptionV3")
    headless = {name: tensor for name, tensor in given.items() if "/Logits/" not in name}
    with pytest.raises(GradshardError, match=r"^x lacks the classifier of InceptionV3: give the whole checkpoint"):
        convert_slim(headless, where="x")
    strange = given | {"InceptionV3/Mixed_9z/Branch_0/Conv2d_0a_1x1/weights": torch.rand(1, 1, 3, 4)}
    with pytest.raises(GradshardError, match=r"^x has layers that InceptionV3 lacks \('9z'\): give a checkpoint of it"):
        convert_slim(strange, where="x")
