"""The tests with the marker ``device``, on the GPU."""

from pathlib import Path

import click
import pytest

from benchmarks.gpu.part import Findings, findings, part_options

ROOT = Path(__file__).parents[2]
# By name: other tests need packages that a machine with a GPU may lack.
FILES = sorted(ROOT.glob("tests/**/test_on_a_device.py"))


@click.command()
@part_options
def main(result: Path, device: str, small: bool) -> None:
    """Run the tests; where one fails, the part is not done."""
    with findings(result, device, small=small) as found:
        # The whole of them are slow on a CPU, and part of the test suite there.
        chosen = ["-k", "signs and not compiled"] if small else []
        quiet = ["-q", "-p", "no:cacheprovider", "--durations=0", f"--rootdir={ROOT}"]
        if pytest.main([*quiet, *chosen, *map(str, FILES)], plugins=[_Outcomes(found)]):
            raise click.ClickException("not all tests passed: they run again next time")


class _Outcomes:
    """Outcomes of tests, each with the seconds that it took."""

    def __init__(self, found: Findings) -> None:
        self._found = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a test, and of its fixtures where those did not pass."""
        if report.when == "call" or report.outcome != "passed":
            self._found.add(f"{report.nodeid} {report.outcome}", report.duration, "s")


if __name__ == "__main__":
    main()
