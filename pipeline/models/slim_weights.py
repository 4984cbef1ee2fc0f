"""Conversion of TF-slim's Inception v3 and Inception-ResNet v2, the papers' defended models, to timm's names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradshard.storage.errors import GradshardError

# timm's names of the convolutions of each branch, in the order of TF-slim's names, by the kind of block.
_V3_BRANCHES = {
    "5b": (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ("branch_pool",),
    ),
    "6a": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
    "6b": (
        ("branch1x1",),
        ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
        ("branch_pool",),
    ),
    "7a": (
        ("branch3x3_1", "branch3x3_2"),
        ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
    ),
    "7b": (
        ("branch1x1",),
        ("branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b"),
        ("branch_pool",),
    ),
}
_V3_LIKE = {"5c": "5b", "5d": "5b", "6c": "6b", "6d": "6b", "6e": "6b", "7c": "7b"}
_REPEATS = {"Repeat/block35": "repeat", "Repeat_1/block17": "repeat_1", "Repeat_2/block8": "repeat_2"}
_ARCHITECTURES = {
    "InceptionV3": "timm:inception_v3.tf_adv_in1k",
    "InceptionResnetV2": "timm:inception_resnet_v2.tf_in1k",
}
# The classes of ImageNet, after one for the background, which no image has.
_WITH_BACKGROUND = 1001
_SLIM = re.compile(r"(?P<net>InceptionV3|InceptionResnetV2)/(?P<layer>.+?)/(?P<kind>weights|biases|BatchNorm/\w+)")
_PORTED = re.compile(
    r"(?P<net>InceptionV3|InceptionResnetV2)_(?:(?P=net)_)?"
    r"(?:(?P<block>Mixed_\d[a-z]|Repeat(?:_\d)?_block\d+_\d+|Block8|AuxLogits|Logits)_)?"
    r"(?:(?P<branch>Branch_\d)_)?(?P<layer>\w+?)_(?P<operation>BatchNorm_\w+|Conv2D|convolution|MatMul)"
    r"\.(?P<kind>weight|bias|running_mean|running_var)"
)
_STEP = re.compile(r"(?:\d[a-z]_)?\dx\d$")
_KINDS = {
    "weights": "weight",
    "biases": "bias",
    "BatchNorm/gamma": "bn.weight",
    "BatchNorm/beta": "bn.bias",
    "BatchNorm/moving_mean": "bn.running_mean",
    "BatchNorm/moving_variance": "bn.running_var",
}


@dataclass(frozen=True)
class Converted:
    """Tensors by timm's names, their architecture, and remarks on what was left out."""

    architecture: str
    tensors: dict[str, Tensor]
    remarks: tuple[str, ...]


# The tensors of each layer by their kind, such as weight and bn.bias.
Layers = Mapping[str, Mapping[str, Tensor]]


def convert_slim(variables: Mapping[str, Tensor], *, where: str) -> Converted:
    """Convert the variables of TF-slim, whose convolutions are (H, W, in, out) and whose matrices (in, out).

    Raises:
        GradshardError: the variables, which come from ``where``, are not those of one of the two architectures.
    """
    layers: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in variables.items():
        if found := _SLIM.fullmatch(name):
            kind = _KINDS.get(found["kind"])
            if kind is not None:
                layers[found["net"]][found["layer"]][kind] = _to_torch(tensor) if kind == "weight" else tensor
    return _converted(layers, where=where)


def convert_ported(state: Mapping[str, Tensor], *, where: str) -> Converted:
    """Convert MMdnn's port to PyTorch, whose tensors have the names of TensorFlow's operations and PyTorch's shapes.

    Raises:
        GradshardError: the tensors, which come from ``where``, are not those of one of the two architectures.
    """
    layers: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in state.items():
        if found := _PORTED.fullmatch(name.replace("/", "_")):
            block = (found["block"] or "").replace("_block", "/block")
            layer = "/".join(part for part in (block, found["branch"], found["layer"]) if part)
            normalises = found["operation"].startswith("BatchNorm")
            layers[found["net"]][layer][f"bn.{found['kind']}" if normalises else found["kind"]] = tensor
    return _converted(layers, where=where)


def _to_torch(kernel: Tensor) -> Tensor:
    return kernel.permute(3, 2, 0, 1) if kernel.dim() == 4 else kernel.t()


def _converted(found: Mapping[str, Layers], *, where: str) -> Converted:
    if len(found) != 1:
        raise GradshardError(
            f"{where} does not hold TF-slim's weights of one of {', '.join(_ARCHITECTURES)}: give a checkpoint of it"
        )
    ((net, layers),) = found.items()
    wanted = {layer: kinds for layer, kinds in layers.items() if not layer.startswith("AuxLogits")}
    try:
        rename = _v3_names(wanted) if net == "InceptionV3" else _resnet_names(wanted)
    except LookupError as error:
        raise GradshardError(f"{where} has layers that {net} lacks ({error}): give a checkpoint of it") from error
    tensors: dict[str, Tensor] = {}
    for layer, kinds in wanted.items():
        tensors |= _layer(rename[layer], kinds, where=f"{where}: {net}/{layer}")
    remarks = [] if len(wanted) == len(layers) else ["without its auxiliary classifier"]
    classifier = "fc" if net == "InceptionV3" else "classif"
    if f"{classifier}.bias" not in tensors:
        raise GradshardError(f"{where} lacks the classifier of {net}: give the whole checkpoint")
    if len(tensors[f"{classifier}.bias"]) == _WITH_BACKGROUND:
        for kind in ("weight", "bias"):
            tensors[f"{classifier}.{kind}"] = tensors[f"{classifier}.{kind}"][1:]
        remarks.append("without its class 0, the background")
    plain = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    return Converted(_ARCHITECTURES[net], plain, tuple(remarks))


def _layer(name: str, kinds: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Name the tensors of one layer: a classifier, a convolution with biases, or one with batch normalisation."""
    if "bias" in kinds:
        weight = kinds["weight"]
        weight = weight.flatten(1) if name in ("fc", "classif") else weight
        return {f"{name}.weight": weight, f"{name}.bias": kinds["bias"]}
    lacking = {"weight", "bn.bias", "bn.running_mean", "bn.running_var"} - kinds.keys()
    if lacking:
        raise GradshardError(f"{where} lacks its {sorted(lacking)[0]}: give the whole checkpoint")
    # TF-slim's batch normalisation has no scale of its own in these architectures.
    scale = kinds.get("bn.weight", torch.ones_like(kinds["bn.bias"]))
    normalisation = {kind: tensor for kind, tensor in kinds.items() if kind.startswith("bn.")} | {"bn.weight": scale}
    return {
        f"{name}.conv.weight": kinds["weight"],
        **{f"{name}.{kind}": tensor for kind, tensor in normalisation.items()},
    }


def _v3_names(layers: Iterable[str]) -> dict[str, str]:
    names = {}
    for layer, (block, branch, place) in _places(layers).items():
        if block == "Logits":
            names[layer] = "fc"
        elif branch is None:
            names[layer] = block
        else:
            kind = block.removeprefix("Mixed_")
            names[layer] = f"{block}.{_V3_BRANCHES[_V3_LIKE.get(kind, kind)][branch][place]}"
    return names


def _resnet_names(layers: Iterable[str]) -> dict[str, str]:
    names = {}
    places = _places(layers)
    for layer, (block, branch, place) in places.items():
        repeated = re.fullmatch(r"(\w+/block\d+)_(\d+)", block)
        ours = f"{_REPEATS[repeated[1]]}.{int(repeated[2]) - 1}" if repeated else block.lower()
        if block == "Logits":
            names[layer] = "classif"
        elif branch is None:
            # A block has one convolution beside its branches; any other layer is a single convolution.
            names[layer] = f"{ours}.conv2d" if "lock" in block else re.sub(r"_\dx\d$", "", ours)
        else:
            alone = sum(where[:2] == (block, branch) for where in places.values()) == 1
            pooled = block == "Mixed_5b" and branch == 3
            names[layer] = f"{ours}.branch{branch}" + (".1" if pooled else "" if alone else f".{place}")
    return names


def _places(layers: Iterable[str]) -> dict[str, tuple[str, int | None, int]]:
    """Return for each layer its block, its branch if it is in one, and its place there."""
    branches: dict[tuple[str, int], list[str]] = defaultdict(list)
    places: dict[str, tuple[str, int | None, int]] = {}
    for layer in layers:
        if found := re.fullmatch(r"(.+)/Branch_(\d)/([^/]+)", layer):
            branches[found[1], int(found[2])].append(layer)
        elif layer.startswith("Logits/"):
            places[layer] = ("Logits", None, 0)
        else:
            block = layer.rpartition("/")[0]
            places[layer] = (block or layer, None, 0)
    for (block, branch), found_layers in branches.items():
        for place, layer in enumerate(sorted(found_layers, key=_step)):
            places[layer] = (block, branch, place)
    return places


def _step(layer: str) -> str:
    """Return the step and the kernel in a layer's name, such as 0b_1x3, which put a branch's layers in order."""
    found = _STEP.search(layer)
    return found[0] if found else layer
