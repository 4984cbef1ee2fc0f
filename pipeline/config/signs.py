"""The section that says what a sign store holds; ``compute_signs`` takes the same fields and has them checked here."""

from typing import Annotated, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gradshard.pipeline.attacks.registry import ATTACKS, meant_attack
from gradshard.pipeline.config.errors import schema_error
from gradshard.pipeline.config.fields import ModelName, Pixels, PlainName, Seed, StoredFor
from gradshard.pipeline.config.section import Section
from gradshard.pipeline.plugins import is_reference
from gradshard.pipeline.types import Gradient, StorePrecision
from gradshard.storage.formats.manifest import Word

# The order in kept results, which must be reproducible byte for byte.
_RECORDED_FIRST = ("model", "gradient", "label", "precision", "licence")
_OF_AN_ATTACK = {"attack", "epsilon", "alpha", "steps", "arguments", "copies", "seed"}


class StoredSigns(Section):
    """Signs that a store holds: of the ``gradient`` of a loss, for a ``label``, computed in ``precision``.

    With an ``attack``, one of the table or from elsewhere, they are the attack's end directions instead. It is crafted
    at ``eps``, of which ``alpha`` is a random step (RAND+FGSM), in ``steps``, or called with ``arguments``; ``copies``
    times, with random parts that depend only on ``seed``, row and copy.
    """

    gradient: Gradient = "exact"
    label: StoredFor
    precision: StorePrecision = "fp32"
    attack: str | None = None
    epsilon: Annotated[Pixels, Field(gt=0, le=1)] | None = Field(alias="eps", default=None)
    alpha: Annotated[Pixels, Field(gt=0, lt=1)] | None = None
    steps: Annotated[int, Field(gt=0, le=1000)] | None = None
    arguments: dict[PlainName, bool | int | Pixels | Word | None] = Field(default_factory=dict)
    copies: Annotated[int, Field(gt=0, le=15)] = 1
    seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = self.model_fields_set
        if self.attack is None:
            self._check_gradient_store()
        elif self.attack in ATTACKS:
            takes = ATTACKS[self.attack].takes.values()
            self._check_taken("epsilon", "eps", self.attack != "fgsm", "its sign is the same for every epsilon")
            self._check_taken("alpha", "alpha", "alpha" in takes, "it makes no random step")
            self._check_taken("steps", "steps", not {"steps", "pgd_steps"}.isdisjoint(takes), "its steps are its own")
            if self.alpha is not None and self.epsilon is not None and self.alpha >= self.epsilon:
                raise schema_error("alpha", f"must be below eps ({self.epsilon}), but is {self.alpha}")
            if self.copies > 1 and not ATTACKS[self.attack].random and self.label != "random":
                raise schema_error("copies", f"is not for {self.attack}, which draws nothing: all would be equal")
            if self.arguments:
                raise schema_error("arguments", "is for an attack from elsewhere: remove it")
        elif is_reference(self.attack):
            self._check_taken("epsilon", "eps", True, "")
            for name, value in (("alpha", self.alpha), ("steps", self.steps)):
                if value is not None:
                    told = f'arguments: {{"{name}": {value}}}'
                    raise schema_error(name, f"is not for {self.attack}, whose keywords are its arguments: give {told}")
            for name in {"eps", "epsilon", "epsilons"} & self.arguments.keys():
                raise schema_error(f"arguments.{name}", "is given by eps: remove it")
        else:
            raise schema_error("attack", f"is {self.attack}, which is no attack{meant_attack(self.attack)}")
        if self.attack is not None and self.label in ("least_likely", "random"):
            able = [name for name, attack in ATTACKS.items() if attack.targetable]
            if self.attack not in able:
                raise schema_error("label", f"is {self.label}, a target, which only {', '.join(able)} step towards")
        own_loss = self.attack is not None and (self.attack not in ATTACKS or ATTACKS[self.attack].own_loss)
        if own_loss and "gradient" in given:
            raise schema_error("gradient", f"is not for {self.attack}, whose loss is its own: remove it")
        return self

    def _check_gradient_store(self) -> None:
        if "gradient" not in self.model_fields_set:
            raise schema_error("gradient", "is missing: exact or cross_entropy")
        for name in sorted(_OF_AN_ATTACK & self.model_fields_set):
            key = "eps" if name == "epsilon" else name
            raise schema_error(key, "is for a store of an attack: name one in attack, or remove it")
        if self.label == "random":
            raise schema_error("label", "is random, a target for an attack: name one in attack")

    def _check_taken(self, name: str, key: str, wanted: bool, why: str) -> None:
        """Refuse a value that the attack does not take, or the lack of one that it takes."""
        given = getattr(self, name) is not None
        if wanted and not given:
            raise schema_error(key, f"is missing, which {self.attack} takes")
        if given and not wanted:
            raise schema_error(key, f"is not for {self.attack} ({why}): remove it")


class SignsParams(StoredSigns):
    """A sign store: what it holds, the model that it is made from, and an SPDX licence, if any.

    ``zero_rows`` is the largest share of images that may have a gradient of 0 in every pixel, which no attack can
    follow.
    """

    model: ModelName
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,60}$")] | None = None
    zero_rows: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_serializer(mode="wrap")
    def _without_what_no_sign_follows_from(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        passed_over = {"zero_rows"} if self.attack else {"zero_rows", *_OF_AN_ATTACK, "eps"}
        return {key: dumped[key] for key in dict.fromkeys((*_RECORDED_FIRST, *dumped)) if key not in passed_over}
