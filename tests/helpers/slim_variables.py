"""The variables of TF-slim's Inception v3 and Inception-ResNet v2, as its code names and shapes them."""

# Convolutions by block and branch: name, channels in and out; the name ends in the kernel unless one is given.
_A = "0:0a_1x1,64 1:{b},48 1:{c},48,64 2:0a_1x1,64 2:0b_3x3,64,96 2:0c_3x3,96,96 3:0b_1x1,{pool}"
_C = (
    "0:0a_1x1,192 1:0a_1x1,{n} 1:0b_1x7,{n},{n} 1:0c_7x1,{n},192 2:0a_1x1,{n} 2:0b_7x1,{n},{n} 2:0c_1x7,{n},{n} "
    "2:0d_7x1,{n},{n} 2:0e_1x7,{n},192 3:0b_1x1,192"
)
_E = (
    "0:0a_1x1,320 1:0a_1x1,384 1:0b_1x3,384,384 1:{c},384,384 2:0a_1x1,448 2:0b_3x3,448,384 2:0c_1x3,384,384 "
    "2:0d_3x1,384,384 3:0b_1x1,192"
)
_V3 = {
    ("Mixed_5b", 192): _A.format(b="0a_1x1", c="0b_5x5", pool=32),
    ("Mixed_5c", 256): _A.format(b="0b_1x1", c="Conv_1_0c_5x5", pool=64),
    ("Mixed_5d", 288): _A.format(b="0a_1x1", c="0b_5x5", pool=64),
    ("Mixed_6a", 288): "0:1a_1x1/3x3,384 1:0a_1x1,64 1:0b_3x3,64,96 1:1a_1x1/3x3,96,96",
    ("Mixed_6b", 768): _C.format(n=128),
    ("Mixed_6c", 768): _C.format(n=160),
    ("Mixed_6d", 768): _C.format(n=160),
    ("Mixed_6e", 768): _C.format(n=192),
    ("Mixed_7a", 768): "0:0a_1x1,192 0:1a_3x3,192,320 1:0a_1x1,192 1:0b_1x7,192,192 1:0c_7x1,192,192 1:1a_3x3,192,192",
    ("Mixed_7b", 1280): _E.format(c="0b_3x1"),
    ("Mixed_7c", 2048): _E.format(c="0c_3x1"),
}
_RESNET = {
    ("Mixed_5b", 192): "0:1x1,96 1:0a_1x1,48 1:0b_5x5,48,64 2:0a_1x1,64 2:0b_3x3,64,96 2:0c_3x3,96,96 3:0b_1x1,64",
    **{
        (
            f"Repeat/block35_{number}",
            320,
        ): "0:1x1,32 1:0a_1x1,32 1:0b_3x3,32,32 2:0a_1x1,32 2:0b_3x3,32,48 2:0c_3x3,48,64"
        for number in range(1, 11)
    },
    ("Mixed_6a", 320): "0:1a_3x3,384 1:0a_1x1,256 1:0b_3x3,256,256 1:1a_3x3,256,384",
    **{
        (f"Repeat_1/block17_{number}", 1088): "0:1x1,192 1:0a_1x1,128 1:0b_1x7,128,160 1:0c_7x1,160,192"
        for number in range(1, 21)
    },
    ("Mixed_7a", 1088): (
        "0:0a_1x1,256 0:1a_3x3,256,384 1:0a_1x1,256 1:1a_3x3,256,288 2:0a_1x1,256 2:0b_3x3,256,288 2:1a_3x3,288,320"
    ),
    **{
        (block, 2080): "0:1x1,192 1:0a_1x1,192 1:0b_1x3,192,224 1:0c_3x1,224,256"
        for block in (*(f"Repeat_2/block8_{number}" for number in range(1, 10)), "Block8")
    },
}
_UP = {"Repeat/": 128, "Repeat_1/": 384, "Repeat_2/": 448, "Block8": 448}
_STEM = "Conv2d_1a_3x3,3,32 Conv2d_2a_3x3,32,32 Conv2d_2b_3x3,32,64 Conv2d_3b_1x1,64,80 Conv2d_4a_3x3,80,192"


def slim_variables(net: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all variables of InceptionV3 or InceptionResnetV2, for 1,000 classes and the background."""
    blocks = _V3 if net == "InceptionV3" else _RESNET
    variables: dict[str, tuple[int, ...]] = {"global_step": ()}
    for layer in _STEM.split():
        name, channels, out = layer.split(",")
        variables |= _convolution(f"{net}/{name}", int(channels), int(out))
    for (block, channels), layers in blocks.items():
        for layer in layers.split():
            branch, _, spec = layer.partition(":")
            step, *sizes = spec.split(",")
            step, _, kernel = step.partition("/")
            first, out = (channels, int(sizes[0])) if len(sizes) == 1 else map(int, sizes)
            name = step if step.startswith("Conv") else f"Conv2d_{step}"
            variables |= _convolution(f"{net}/{block}/Branch_{branch}/{name}", first, out, kernel)
        for beginning, gathered in _UP.items():
            if block.startswith(beginning):
                variables[f"{net}/{block}/Conv2d_1x1/weights"] = (1, 1, gathered, channels)
                variables[f"{net}/{block}/Conv2d_1x1/biases"] = (channels,)
    if net == "InceptionV3":
        last, classifier, features = "Logits/Conv2d_1c_1x1", (1, 1, 2048, 1001), 768
    else:
        variables |= _convolution(f"{net}/Conv2d_7b_1x1", 2080, 1536)
        last, classifier, features = "Logits/Logits", (1536, 1001), 1088
    variables |= {f"{net}/{last}/weights": classifier, f"{net}/{last}/biases": (1001,)}
    return variables | _convolution(f"{net}/AuxLogits/Conv2d_1b_1x1", features, 128)


def _convolution(name: str, channels: int, out: int, kernel: str = "") -> dict[str, tuple[int, ...]]:
    height, width = map(int, (kernel or name[-3:]).split("x"))
    normalisation = {f"{name}/BatchNorm/{kind}": (out,) for kind in ("beta", "moving_mean", "moving_variance")}
    return {f"{name}/weights": (height, width, channels, out), **normalisation}
