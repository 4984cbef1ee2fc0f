"""The command line: one click group whose commands are the stages."""

import errno
import sys

import click

from gradshard import storage
from gradshard.stages.console.lazy_group import LazyGroup
from gradshard.storage.errors import GradshardError
from gradshard.storage.optional import explained

_COMMANDS = {
    "init": ("gradshard.stages.init", "Make a project that runs everything through DVC."),
    "fingerprint": ("gradshard.stages.fingerprint", "Tell whether the raw images changed since they were prepared."),
    "prepare": ("gradshard.stages.prepare", "Check the raw images and store them in one fixed order."),
    "train-static": ("gradshard.stages.train_static", "Train a static model on clean images."),
    "precompute": ("gradshard.stages.precompute", "Store the signed gradients of a static model."),
    "sources": ("gradshard.stages.sources", "Note the digests of the stores that robust models use."),
    "train-robust": ("gradshard.stages.train_robust", "Train a robust model on perturbed images."),
    "digests": ("gradshard.stages.digests", "Note the digests of the models that are attacked."),
    "evaluate": ("gradshard.stages.evaluate", "Attack every target from every source."),
    "analyze": ("gradshard.stages.analyze", "Measure the models' gradients and the loss around images."),
    "blackbox": ("gradshard.stages.blackbox", "Attack targets by queries alone, and a random forest."),
    "export-examples": (
        "gradshard.stages.export_examples",
        "Write the adversarial images behind one error rate as a tensor.",
    ),
    "examine": ("gradshard.stages.examine", "Attack any model, and tell whether its gradient can be trusted."),
    "report": ("gradshard.stages.report", "Write the results as one HTML page."),
    "table": ("gradshard.stages.table", "Put a table of the results into a README or a paper."),
    "compare": ("gradshard.stages.compare", "Tell whether one model errs less than another."),
    "profile": ("gradshard.stages.profile", "List the ready-made parameter files, or switch to one."),
    "plan": ("gradshard.stages.plan", "Plan what stores and training on them will take."),
    "docs": ("gradshard.stages.docs", "Show a page of the documentation, also without network."),
    "weights": ("gradshard.stages.weights:group", "Convert weights that somebody else trained."),
    "store": ("gradshard.stages.store.group:group", "Inspect, check, repair and share sign stores."),
}

# The exit code of a stage that Ctrl-C ended, as in shells.
INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    heading="Commands, in the order in which the pipeline runs them",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(storage.__version__, prog_name="gradshard")
def cli() -> None:
    """Precompute adversarial gradients once, share them, train on them many times.

    The stages read the active profile, params.yaml, in the current folder. `dvc repro` runs, in order, all stages for
    which something changed; `gradshard COMMAND --help` explains a single command.
    """


class ToldError(Exception):
    """Error that ends a command, in one sentence, with its exit code."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


def main() -> None:
    """Run the command line; report a mistake of the user in one sentence, with exit code 2."""
    try:
        sys.exit(run())
    except ToldError as error:
        click.echo(f"gradshard: {error}", err=True)
        sys.exit(error.code)


def run() -> int:
    """Run the command line and return the exit code that a command asked for.

    Raises:
        ToldError: the user made a mistake, or the machine lacks something.
    """
    try:
        # Without its standalone mode, click returns the exit code that a command asked for.
        return cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort) as error:
        raise ToldError("interrupted; run the same command again to go on from there", INTERRUPTED) from error
    except GradshardError as error:
        raise ToldError(str(error), error.exit_code) from error
    except ModuleNotFoundError as error:
        sentence = explained(error, "this command")
        if sentence is None:
            raise
        raise ToldError(str(sentence)) from error
    except OSError as error:
        raise ToldError(_os_sentence(error)) from error
    except MemoryError as error:
        raise ToldError(f"not enough memory ({error or 'none left'}): free some, or lower streaming.memory") from error


def _os_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{where}: free some and run the same command again to go on from there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write or read{where}: change its permissions or run this in another folder"
    return f"the system reports: {error.strerror or error}{where}"
