from .attacks import autoattack, cw, fgsm, iterative_fgsm, mi_fgsm, pgd, rand_fgsm
from .evaluation import EvaluationResult, evaluate, examine
from .models import create_model, load_model
from .pipeline.attacks.registry import ATTACKS
from .pipeline.gradients.input_gradient import input_gradient
from .pipeline.gradients.perturb import perturb
from .pipeline.gradients.unpack import unpack_signs
from .pipeline.loading import SignedDataset, SignLoader, compute_signs
from .storage import __version__
from .storage.errors import GradshardError
from .stores import audit, open_dataset, open_signs, verify, write_signs

__all__ = [
    "ATTACKS",
    "EvaluationResult",
    "GradshardError",
    "SignLoader",
    "SignedDataset",
    "__version__",
    "audit",
    "autoattack",
    "compute_signs",
    "create_model",
    "cw",
    "evaluate",
    "examine",
    "fgsm",
    "input_gradient",
    "iterative_fgsm",
    "load_model",
    "mi_fgsm",
    "open_dataset",
    "open_signs",
    "perturb",
    "pgd",
    "rand_fgsm",
    "unpack_signs",
    "verify",
    "write_signs",
]
