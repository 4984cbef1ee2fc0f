"""``gradshard.examine``: the verdict on a module, and what is refused in a sentence."""

import re

import pytest
import torch
from torch import nn

import gradshard as gs


@pytest.fixture
def model(linear_model):
    return linear_model(classes=4, seed=1).eval()


@pytest.fixture
def examples(model):
    images = torch.rand(250, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    return images, model(images).argmax(1)


class _Rounded(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((9 * images).round() / 9)


def test_a_model_that_shows_its_gradient_raises_no_flag_and_one_that_rounds_its_input_does(
    model, examples, linear_model
):
    sources = {"S": model}
    plain = gs.examine(model, *examples, epsilon=0.2, sources={"S": linear_model(classes=4, seed=2).eval()})
    rounded = gs.examine(_Rounded(model).eval(), *examples, epsilon=0.2, sources=sources)
    assert not plain.masked
    assert plain.error("pgd").rate > 0.2
    assert {"zero-gradients", "black-box-beats-white-box"} <= {flag.name for flag in rounded.flags}
    assert rounded.error("fgsm").rate < rounded.error("fgsm", "S").rate <= rounded.worst_case.rate


def test_printed_it_is_a_table_of_errors_and_the_flags_and_no_flag_does_not_read_as_robust(
    model, examples, linear_model
):
    source = linear_model(classes=4, seed=2).eval()
    lines = str(gs.examine(model, *examples, epsilon=0.2, sources={"S": source})).splitlines()
    named = [
        "Clean",
        "Random signs",
        "FGSM",
        "FGSM from S",
        "RAND+FGSM",
        "I-FGSM",
        "I-FGSM from S",
        "PGD",
        "worst case",
    ]
    assert [line[:13].strip() for line in lines[:-1]] == named
    assert all(re.fullmatch(r".{13}  +\d+\.\d% \(\d+\.\d% to \d+\.\d%\)", line) for line in lines[:-1])
    assert lines[-1] == "no flag: its own attacks can be believed, which does not make it robust"
    rounded = str(gs.examine(_Rounded(model).eval(), *examples, epsilon=0.2)).splitlines()
    assert any(line.startswith("zero-gradients: for some examples the gradient is 0") for line in rounded)
    assert re.match(r"\d flags?: its gradient cannot be trusted", rounded[-1])


def test_its_errors_are_those_of_evaluate(model, examples, linear_model):
    sources = {"S": linear_model(classes=4, seed=2).eval()}
    found = gs.examine(model, *examples, epsilon=0.1, sources=sources)
    evaluated = gs.evaluate({"M": model}, *examples, attacks=["fgsm"], epsilon=0.1, sources=sources)
    assert [result.error for result in evaluated] == [found.error("clean"), found.error("fgsm", "S")]


def test_an_attack_of_a_library_counts_in_the_worst_case(model, examples):
    pytest.importorskip("torchattacks")
    named = "torchattacks:MIFGSM"
    options = {"epsilon": 0.2, "attacks": ["rand_fgsm", named], "arguments": {named: {"steps": 3, "alpha": 0.05}}}
    found = gs.examine(model, *examples, **options)
    (_, alone) = gs.evaluate({"M": model}, *examples, attacks=[named], epsilon=0.2, arguments=options["arguments"])
    assert found.error(named) == alone.error
    assert found.worst_case.errors >= max(found.error("rand_fgsm").errors, alone.error.errors)
    assert any(line.startswith(named) for line in str(found).splitlines())


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"images": lambda images: 255 * images}, "and not from 0 to 1: normalise inside the model"),
        ({"images": lambda images: (255 * images).to(torch.uint8)}, "divide them by 255"),
        ({"model": lambda model: model.train()}, "self is in training mode: call its eval() first"),
        ({"model": lambda model: nn.Sequential(model, nn.Softmax(1)).eval()}, "gives probabilities and not logits"),
        ({"sources": lambda model: {"self": model}}, "a source is named self"),
        ({"attacks": lambda model: ["fgms"]}, "there is no attack fgms"),
    ],
)
def test_what_cannot_be_examined_is_refused_in_one_sentence(model, examples, change, saying):
    images, labels = examples
    given = {key: make(images if key == "images" else model) for key, make in change.items()}
    keywords = {"epsilon": 0.1, **{key: given[key] for key in ("sources", "attacks") if key in given}}
    with pytest.raises(gs.GradshardError) as refused:
        gs.examine(given.get("model", model), given.get("images", images), labels, **keywords)
    assert saying in str(refused.value)
    assert "\n" not in str(refused.value)
