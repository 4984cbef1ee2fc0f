"""The attacks: one table, by the names that parameters and results call them.

A new attack is one entry. Its function is named and not imported, so that whoever wants a name or a title alone loads
no torch; an attack from elsewhere (``custom_attack``) becomes an entry of the same kind.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradshard.pipeline.types import CLEAN

# Of the radius, in all steps together (Madry et al. 2018, appendix): enough to cross the ball and turn back.
_PGD_REACH = 2.5
_ROOM = "gradshard.pipeline.attacks"
_LIBRARIES = ("torchattacks", "foolbox", "art")
# The forms of attacks from elsewhere, for messages.
ELSEWHERE = f"{', '.join(f'{library}:NAME' for library in _LIBRARIES)} or package.module:function"
_PGD = f"{_ROOM}.pgd:pgd"
_PGD_TAKES = {"step": "pgd_step", "steps": "pgd_steps", "noise": "starts"}


@dataclass(frozen=True)
class AttackConfig:
    """Strength of an attack: what it may do.

    ``epsilon`` in all, of it ``alpha`` at random (RAND+FGSM), in ``steps`` (I-FGSM, MI-FGSM); PGD and C&W in
    ``pgd_steps`` from each of ``restarts`` random starts.
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
    """An attack: the function that crafts, and what it is called with besides model, images, labels and ``epsilon``.

    Args:
        title: what reports call it.
        function: its ``package.module:function``.
        takes: its keywords that follow from the evaluation, each with the name there: one of ``AttackConfig``, of
            ``AttackNoise``, or ``gradient``.
        given: its keywords that are always the same.
        steps: how many it makes, where it takes no ``steps``; 0: nobody told.
        own_loss: its loss is its own, whatever the parameter ``gradient``.
        targetable: it can step towards a class (``targeted=True``), as a store of it may ask for.
        targeted: it does where an evaluation's label is the least likely one, as the paper's do; others step away from
            the true label.
        check: a ``package.module:function`` that refuses what cannot run; it is called with ``classes`` and ``given``.
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

    def steps_of(self, config: AttackConfig) -> int:
        """Return how many steps it makes from each start."""
        return int(getattr(config, self.takes["steps"])) if "steps" in self.takes else self.steps

    def alpha_of(self, config: AttackConfig) -> float:
        """Return how far it steps at random."""
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
    """Make an attack from elsewhere one like ours; see ``custom`` for what ``call`` may be.

    ``key`` is what stands before its name in the parameters, for messages.
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
    """Return the end of a sentence about an unknown attack: what was meant, if it is near, and all that there are."""
    library, dot, kind = name.partition(".")
    if dot and library.lower() in _LIBRARIES and kind.isidentifier():
        near = [f"{library.lower()}:{kind}"]
    else:
        near = difflib.get_close_matches(name.lower().replace("-", "").replace("+", "_"), ATTACKS, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{meant}: there are {', '.join(ATTACKS)}, {ELSEWHERE}"


def attack_title(name: str) -> str:
    """Return what reports call an attack, or no attack; one from elsewhere goes by its name."""
    if name == CLEAN:
        return "Clean"
    return ATTACKS[name].title if name in ATTACKS else name
