import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import replace_folder
from gradshard.storage.workspace import root_for, workspace

HOLD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from gradshard.storage.workspace import workspace
    with workspace("job", {"x": 1}, on_wait=print, root=Path(sys.argv[1])) as work:
        (work.folder / "started").touch()
        sys.stdin.read()
    """
)


def enter(root, recipe=None, waits=None):
    return workspace("job", recipe or {"x": 1}, on_wait=(waits if waits is not None else []).append, root=root)


def start_holder(root):
    """Start a process that holds the work until its input is closed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(root.glob("job-*/started")):
        assert time.monotonic() < deadline, "the other process did not start"
        time.sleep(0.01)
    return holder


def enter_behind(holder, root, waits):
    """Enter the work, which its holder leaves as soon as it is told that another waits."""

    def on_wait(process):
        waits.append(process)
        holder.stdin.close()

    return workspace("job", {"x": 1}, on_wait=on_wait, root=root)


def test_work_survives_an_exception_and_is_removed_on_success(tmp_path):
    def fail_halfway():
        with enter(tmp_path) as work:
            (work.folder / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with enter(tmp_path) as work:
        assert (work.folder / "half").exists()
    assert not work.folder.exists()


def test_another_recipe_has_another_folder(tmp_path):
    with enter(tmp_path) as one, enter(tmp_path, {"x": 2}) as other:
        assert one.folder != other.folder


def test_names_that_differ_behind_a_dot_do_not_wait_for_each_other(tmp_path):
    def fail(process):
        raise AssertionError(f"waited for process {process}")

    with (
        workspace("pull-v1.0", {"x": 1}, on_wait=fail, root=tmp_path),
        workspace("pull-v1.1", {"x": 1}, on_wait=fail, root=tmp_path),
    ):
        assert len(list(tmp_path.glob("*.lock"))) == 2


def test_a_killed_process_leaves_its_work_and_no_lock(tmp_path):
    holder = start_holder(tmp_path)
    holder.kill()
    holder.wait()
    waits = []
    with enter(tmp_path, waits=waits) as work:
        assert (work.folder / "started").exists()
        assert not work.waited
    assert waits == []


def test_a_second_process_is_told_who_holds_the_work_and_waits(tmp_path):
    holder = start_holder(tmp_path)
    waits = []
    with enter_behind(holder, tmp_path, waits) as work:
        assert work.waited
        assert holder.wait(timeout=60) == 0
        assert not (work.folder / "started").exists()
    assert waits == [str(holder.pid)]


def test_a_process_that_ends_while_its_number_is_read_is_waited_for_all_the_same(tmp_path, monkeypatch):
    def gone(path, **options):
        raise FileNotFoundError(path)

    holder = start_holder(tmp_path)
    monkeypatch.setattr(Path, "read_text", gone)
    waits = []
    with enter_behind(holder, tmp_path, waits) as work:
        assert work.waited
        assert holder.wait(timeout=60) == 0
    assert waits == ["unknown"]


@pytest.fixture
def other_disk(tmp_path, monkeypatch):
    """A folder on another file system than the working directory's."""
    monkeypatch.chdir(tmp_path)
    known = [Path(place) for place in ("/dev/shm", "/var/tmp") if Path(place).is_dir()]
    others = [place for place in known if place.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=others[0]) as folder:
        yield Path(folder)


def test_work_is_done_on_the_disk_of_its_output_and_renamed_there(tmp_path, other_disk):
    (tmp_path / "signs").symlink_to(other_disk)
    for target, root in ((Path("data/out"), Path(".partial")), (Path("signs/out"), Path("signs/.partial"))):
        assert root_for(target) == root
        with enter(root_for(target)) as work:
            (work.folder / "made").mkdir()
            replace_folder(work.folder / "made", target)
        assert {path.name for path in target.parent.iterdir()} - {".partial"} == {"out"}
    assert not list(tmp_path.glob("**/.probe*"))


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_an_output_is_refused_and_stays(tmp_path, there):
    if there:
        (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with pytest.raises(GradshardError, match=r"out is a link to .*disk, and a new folder would take .*: remove it or"):
        root_for(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()


def test_what_a_kill_in_the_removal_leaves_is_not_gone_on_from(tmp_path, monkeypatch):
    def killed(folder, ignore_errors=False):
        if not ignore_errors:
            (folder / "first").unlink()
            raise KeyboardInterrupt

    def work_whole():
        with enter(tmp_path) as work:
            (work.folder / "first").touch()
            (work.folder / "last").touch()

    monkeypatch.setattr("gradshard.storage.workspace.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        work_whole()
    monkeypatch.undo()
    with enter(tmp_path) as work:
        assert list(work.folder.iterdir()) == []
    assert not any(path.is_dir() for path in tmp_path.iterdir())
