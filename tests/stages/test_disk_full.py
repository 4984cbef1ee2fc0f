"""A disk that is full, for real: told in one sentence; with room again the stage goes on and the bytes are the same."""

import subprocess
import sys

import pytest

from tests.helpers.mounts import require_mounts
from tests.helpers.projects import files, new_project

pytestmark = pytest.mark.slow

# $1 mount point, $2 project, $3 python, $4 kilobytes left free, $5 workers. Some 20 kB take a shard and its receipt.
SCRIPT = """
set -e
mount -t tmpfs -o size=60m tmpfs "$1"
cp -r "$2"/. "$1"
cd "$1"
free=$(df --output=avail -k . | tail -1)
head -c $(((free - $4) * 1024)) /dev/zero > ballast
code=0; "$3" -m gradshard precompute A --workers "$5" > out 2> "$2/first" || code=$?
echo "first exit code: $code"
echo "shards done: $(ls .partial/precompute-A-*/ledger/*.json | wc -l)"
[ ! -e signs/A.zarr ] || echo "published"
rm ballast out
code=0; "$3" -m gradshard precompute A --workers "$5" 2> "$2/second" || code=$?
echo "second exit code: $code"
cp -r signs/. "$2"/signs
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    """A project with the store A, and the project before."""
    project = new_project(tmp_path_factory.mktemp("undisturbed") / "project", digits, train=2000)
    project.run("prepare")
    project.run("train-static", "A")
    before = project.copy_to(project.path.parent / "before")
    project.run("precompute", "A")
    return project, before


def sentences(said: str) -> list[str]:
    """What was said on standard error, but for progress."""
    return [line for line in said.splitlines() if not line.startswith(("precompute A: ", "computing in "))]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_told_in_one_sentence_and_finished_shards_are_kept(undisturbed, tmp_path, workers):
    require_mounts()
    whole, before = undisturbed
    project = before.copy_to(tmp_path / "project")
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = [str(disk), str(project.path), sys.executable, "200", str(workers)]
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", SCRIPT, "bash", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    assert told["first exit code"] == "2"
    first, second = ((project.path / name).read_text() for name in ("first", "second"))
    (sentence,) = [said for said in sentences(first) if said.startswith("gradshard:")]
    assert sentence.startswith("gradshard: no space left on the disk")
    assert sentence.endswith("free some and run the same command again to go on from there")
    shards = 16
    kept = int(told["shards done"])
    assert 0 < kept < shards
    assert "published" not in done.stdout
    assert told["second exit code"] == "0", second
    assert f"going on: {kept} of {shards} shards are there" in second
    assert files(project, "signs") == files(whole, "signs")
