"""The command line: ``gradshard NAME``, the same as ``python -m gradshard NAME``."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line, or say that a checkout lacks the links to its code."""
    try:
        from gradshard.stages.cli import INTERRUPTED
        from gradshard.stages.cli import main as run
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("gradshard."):
            raise
        print(
            f"gradshard: {error.name} is not there: its folder in {Path(__file__).parent} is a link, which this "
            "copy lost; clone again with `git clone -c core.symlinks=true`, or install the package",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        run()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # At exit, Python would stop threads that still compute inside C++ code, which aborts the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
