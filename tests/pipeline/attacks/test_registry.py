"""The table of attacks: every entry can be called as it says, and what results tell of it follows from it."""

import pytest
import torch

from gradshard.pipeline import plugins
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS, AttackConfig, attack_title, custom_attack

CONFIG = AttackConfig(epsilon=0.3, alpha=0.05, steps=10, pgd_steps=40)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attacks_function_takes_what_the_table_says_and_nothing_is_left_out(name):
    attack = ATTACKS[name]
    keywords = {"epsilon": 0.3, **dict.fromkeys(attack.takes), **attack.given}
    assert attack.targetable or not attack.targeted
    if attack.targetable:
        keywords["targeted"] = True
    plugins.check_call(plugins.find(attack.function, what=name), keywords, what=name, positional=3)


def test_the_steps_and_alpha_of_results_are_those_that_an_attack_takes():
    found = {name: (attack.steps_of(CONFIG), attack.alpha_of(CONFIG)) for name, attack in ATTACKS.items()}
    assert found == {
        "fgsm": (1, 0.0),
        "ifgsm": (10, 0.0),
        "rand_fgsm": (1, 0.05),
        "mifgsm": (10, 0.0),
        "pgd": (40, 0.0),
        "cw": (40, 0.0),
        "autoattack": (100, 0.0),
    }


def test_a_title_is_that_of_the_table_and_an_attack_from_elsewhere_goes_by_its_name():
    assert [attack_title(name) for name in ("clean", "rand_fgsm", "cw", "mine")] == [
        "Clean",
        "RAND+FGSM",
        "C&W",
        "mine",
    ]


def test_an_attack_that_is_added_to_the_table_is_run_by_its_name(linear_model):
    images = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    draws = sample_noise(images.shape, 1, generator=torch.Generator().manual_seed(1))
    table = {"mine": custom_attack("mine", f"{__name__}:to_the_noise", {"share": 0.5})}
    found = craft_by_name(
        "mine", linear_model(), images, torch.zeros(3).long(), strength=CONFIG, draws=draws, attacks=table
    )
    assert torch.equal(found, (images + 0.15).clamp(0, 1))


def to_the_noise(model, images, labels, *, epsilon, share):
    return images + share * epsilon
