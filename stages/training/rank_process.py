"""One process of a training run, started by its stage, which also reports the errors."""

import json
import os
import sys
import threading
import time
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from gradshard.pipeline.training.distributed import LostRankError
from gradshard.stages import cli

_CONSEQUENCE = "consequence"
_LOOK_SECONDS = 0.1


def main() -> None:
    """Run the command line that follows the stage's process number, as long as the stage runs.

    An error message goes to the file that torch's agent reads.
    """
    threading.Thread(target=_end_with, args=(int(sys.argv.pop(1)),), name="gradshard-stage", daemon=True).start()
    try:
        cli.run()
    except cli.ToldError as error:
        lost = isinstance(error.__cause__, LostRankError)
        found = {"message": str(error), "timestamp": int(time.time()), _CONSEQUENCE: lost}
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(found), encoding="utf-8")
        sys.exit(error.code)


def _end_with(stage: int) -> None:
    """Exit at once when the stage that started this process is gone: a killed stage cannot end its ranks."""
    while os.getppid() == stage:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def was_told(failure: ProcessFailure) -> bool:
    """Tell whether a failed process left an error message."""
    return _CONSEQUENCE in failure.error_file_data


def is_consequence(failure: ProcessFailure) -> bool:
    """Tell whether the message only says that another process is gone."""
    return bool(failure.error_file_data[_CONSEQUENCE])


if __name__ == "__main__":
    main()
