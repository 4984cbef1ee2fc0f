"""Numbers of a finished training run: steps, losses, passes through the model, and errors on held-back rows."""

from gradshard.pipeline.training.held_back import best, catastrophic_overfitting
from gradshard.pipeline.training.methods.registry import METHODS
from gradshard.pipeline.training.trainer import Trainer
from gradshard.stages.training.curves import Curves


def metrics(trainer: Trainer, curves: Curves) -> dict[str, object]:
    """Return the content of training/NAME.json.

    ``passes`` counts images: those of all steps' batches, and those that went forward and backward through the model,
    crafting included. ``prior_bytes`` is the memory of what the method keeps for every image.
    """
    last, run = curves.records[-1], trainer.run
    found: dict[str, object] = {"steps": trainer.step}
    if last.clean_loss is not None:
        found["loss"] = last.clean_loss
    if run.adversary is not None:
        found |= {"live_steps": trainer.live_steps, "live_share": trainer.live_steps / trainer.step}
        found["method"] = METHODS[run.adversary.method].title
    images = sum(run.batch_rows(step) for step in range(run.steps))
    found["passes"] = {"images": images, **trainer.passes._asdict()}
    if trainer.prior is not None:
        found["prior_bytes"] = trainer.prior.planes.nbytes + sum(
            kept.nbytes for kept in trainer.method.state().values()
        )
    if curves.held_back:
        kept = {"best": best(curves.held_back), "last": curves.held_back[-1]}
        found["held_back"] = {name: {"epoch": errors.epoch, **errors.rates} for name, errors in kept.items()}
        if (jump := catastrophic_overfitting(curves.held_back)) is not None:
            found["catastrophic_overfitting"] = jump._asdict()
    return found
