"""The training methods: one table, by the names that parameters and results use.

A new method is one entry, one name in ``pipeline/types.py`` and one file. Its class is named and not imported, so that
checking parameters does not load torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradshard.pipeline.types import MethodName

_ROOM = "gradshard.pipeline.training.methods"


@dataclass(frozen=True)
class MethodEntry:
    """A training method: the class that computes its losses, and the parameters that are its own.

    Args:
        title: its name in reports.
        function: its class, ``package.module:Class``.
        settings: its parameters below ``robust.NAME``, each with its default value.
        prior: it starts from each image's last perturbation, and is made with a ``PriorBuffer`` for that.
        own_signs: its signs are those of the loss that it trains on, whatever the parameter ``gradient``.
    """

    title: str
    function: str
    settings: Mapping[str, float | None] = field(default_factory=dict)
    prior: bool = False
    own_signs: bool = False


DEFAULT_METHOD: MethodName = "ensemble"
METHODS: Mapping[MethodName, MethodEntry] = {
    "ensemble": MethodEntry(
        "ensemble adversarial training", f"{_ROOM}.ensemble:Ensemble", {"steps": 10, "step_size": None}
    ),
    "fast_at": MethodEntry("Fast-AT", f"{_ROOM}.fast_at:FastAT", {"step_size": 1.25}),
    "n_fgsm": MethodEntry("N-FGSM", f"{_ROOM}.n_fgsm:NFGSM", {"noise": 2.0, "step_size": 1.0}),
    "free_at": MethodEntry("Free-AT", f"{_ROOM}.free_at:FreeAT", {"replays": 8, "step_size": 1.0}, own_signs=True),
    "fgsm_ep": MethodEntry("FGSM-EP", f"{_ROOM}.fgsm_ep:FgsmEP", {"reset_epochs": 40}, prior=True),
    "fgsm_pgi": MethodEntry(
        "FGSM-PGI", f"{_ROOM}.fgsm_pgi:FgsmPGI", {"reset_epochs": 40, "prior_weight": 10}, prior=True
    ),
    "fgsm_mep": MethodEntry(
        "FGSM-MEP",
        f"{_ROOM}.fgsm_mep:FgsmMEP",
        {"reset_epochs": 40, "prior_weight": 10, "prior_momentum": 0.3},
        prior=True,
    ),
    "pgd_at": MethodEntry("PGD-AT", f"{_ROOM}.pgd_at:PgdAT", {"steps": 10, "step_size": None}),
    "trades": MethodEntry(
        "TRADES", f"{_ROOM}.trades:Trades", {"steps": 10, "step_size": None, "beta": 6.0}, own_signs=True
    ),
}
