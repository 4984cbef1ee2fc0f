"""The table of attacks, by their names in parameters and results.

A new attack is one entry. It names its function instead of importing it, so that code that needs only names and titles
does not load torch. For an attack from elsewhere, ``custom_attack`` makes an entry of the same kind.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradshard.pipeline.types import CLEAN

# Length of all steps together, in radii (Madry et al. 2018, appendix): enough to cross the ball and turn back.
_PGD_REACH = 2.5
_ROOM = "gradshard.pipeline.attacks"
_LIBRARIES = ("torchattacks", "foolbox", "art")
# The forms of attacks from elsewhere, for messages.
ELSEWHERE = f"{', '.join(f'{library}:NAME' for library in _LIBRARIES)} or package.module:function"
_PGD = f"{_ROOM}.pgd:pgd"
_PGD_TAKES = {"step": "pgd_step", "steps": "pgd_steps", "noise": "starts"}


@dataclass(frozen=True)
class AttackConfig:
    """Strength of an attack.

    ``epsilon`` is the whole radius, ``alpha`` the part of it that RAND+FGSM steps at random. I-FGSM and MI-FGSM take
    ``steps`` steps; PGD and C&W take ``pgd_steps`` from each of ``restarts`` random starts.
    """

    epsilon: float
    alpha: float
    steps: int
    pgd_steps: int = 40
    restarts: int = 1

    @property
    def pgd_step(self) -> float:
        """The size of a step of PGD and C&W."""
        return _PGD_REACH * self.epsilon / self.pgd_steps


@dataclass(frozen=True)
class Attack:
    """An attack: the function that crafts, and its arguments besides model, images, labels and ``epsilon``.

    Args:
        title: its name in reports.
        function: its ``package.module:function``.
        takes: its keywords whose values the evaluation sets, each with the value's name: an attribute of
            ``AttackConfig`` or ``AttackNoise``, or ``gradient``.
        given: its keywords with fixed values.
        steps: the number of its steps if it takes no keyword ``steps``; 0 if the number is unknown.
        own_loss: it has its own loss, and ignores the parameter ``gradient``.
        targetable: it can step towards a class (``targeted=True``), which a store may ask for.
        targeted: it steps towards the least likely class if an evaluation asks for that label, as the paper's attacks
            do; other attacks step away from the true label.
        check: a ``package.module:function`` that refuses what cannot run, called with ``classes`` and ``given``.
    """

    title: str
    function: str
    takes: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, object] = field(default_factory=dict)
    steps: int = 1
    own_loss: bool = False
    targetable: bool = False
    targeted: bool = False
    check: str | None = None

    @property
    def random(self) -> bool:
        """True if it draws anything at random."""
        return not {"noise", "seed"}.isdisjoint(self.takes)

    def steps_of(self, config: AttackConfig) -> int:
        """Return how many steps it makes from each start."""
        return int(getattr(config, self.takes["steps"])) if "steps" in self.takes else self.steps

    def alpha_of(self, config: AttackConfig) -> float:
        """Return the size of its random step."""
        return config.alpha if "alpha" in self.takes else 0.0


ATTACKS: Mapping[str, Attack] = {
    "fgsm": Attack("FGSM", f"{_ROOM}.fgsm:fgsm", {"gradient": "gradient"}, targetable=True, targeted=True),
    "ifgsm": Attack(
        "I-FGSM",
        f"{_ROOM}.fgsm:iterative_fgsm",
        {"steps": "steps", "gradient": "gradient"},
        targetable=True,
        targeted=True,
    ),
    "rand_fgsm": Attack(
        "RAND+FGSM",
        f"{_ROOM}.fgsm:rand_fgsm",
        {"alpha": "alpha", "noise": "signs", "gradient": "gradient"},
        targetable=True,
        targeted=True,
    ),
    "mifgsm": Attack("MI-FGSM", f"{_ROOM}.pgd:mi_fgsm", {"steps": "steps", "loss": "gradient"}, targetable=True),
    "pgd": Attack("PGD", _PGD, {**_PGD_TAKES, "loss": "gradient"}, targetable=True),
    "cw": Attack("C&W", _PGD, _PGD_TAKES, given={"loss": "hinge"}, own_loss=True),
    "autoattack": Attack(
        "AutoAttack",
        f"{_ROOM}.autoattack:autoattack",
        {"seed": "seed"},
        steps=100,  # of APGD and FAB; Square makes 5,000 queries
        own_loss=True,
        check=f"{_ROOM}.autoattack:check_autoattack",
    ),
}


def custom_attack(name: str, call: str, arguments: Mapping[str, object], *, key: str = "attack.custom.") -> Attack:
    """Make a table entry for an attack from elsewhere; see ``custom`` for the forms of ``call``.

    ``key`` is the prefix of its name in the parameters, for messages.
    """
    return Attack(
        title=name,
        function=f"{_ROOM}.custom:craft",
        takes={"seed": "seed"},
        given={"name": f"{key}{name}", "call": call, "arguments": arguments},
        steps=0,
        own_loss=True,
        check=f"{_ROOM}.custom:check",
    )


def meant_attack(name: str) -> str:
    """Return the end of a message about an unknown attack: a similar name, if there is one, and all known names."""
    library, dot, kind = name.partition(".")
    if dot and library.lower() in _LIBRARIES and kind.isidentifier():
        near = [f"{library.lower()}:{kind}"]
    else:
        near = difflib.get_close_matches(name.lower().replace("-", "").replace("+", "_"), ATTACKS, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{meant}: there are {', '.join(ATTACKS)}, {ELSEWHERE}"


def attack_title(name: str) -> str:
    """Return the title of an attack, or of clean images, in reports; an attack from elsewhere keeps its name."""
    if name == CLEAN:
        return "Clean"
    return ATTACKS[name].title if name in ATTACKS else name
