"""The way in: ``gradshard STAGE``, the same as ``python -m stages STAGE``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Run the command line, unless another package of one of our names would be imported instead of ours."""
    root = Path(__file__).resolve().parent.parent
    for package in ("pipeline", "storage"):
        spec = find_spec(package)
        found = Path(str(spec and spec.origin)).resolve().parent
        if found.parent != root:
            print(
                f"gradshard: the package {package} would be imported from {found} instead of {root}: run this in the "
                "project's root, or uninstall the other package",
                file=sys.stderr,
            )
            sys.exit(2)
    from stages.cli import INTERRUPTED
    from stages.cli import main as run

    try:
        run()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # Threads that still compute would be stopped inside C++ code as Python ends, and that aborts the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
