import errno
import fnmatch
import os
import stat
from pathlib import Path

import pytest

from gradshard.storage.formats import atomic


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def fail_halfway():
        with atomic.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("ignore_file", [".dvcignore", "stages/project/template/dvcignore"])
def test_dvc_ignores_what_a_killed_writer_leaves_beside_its_output(tmp_path, ignore_file):
    ignored = (Path(__file__).parents[3] / ignore_file).read_text().splitlines()
    with atomic.atomic_path(tmp_path / "A.safetensors") as temporary:
        assert any(fnmatch.fnmatchcase(temporary.name, pattern) for pattern in ignored)


def test_written_files_have_the_usual_permissions(tmp_path):
    atomic.write_text(tmp_path / "file", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_never_changes_the_umask_which_other_threads_share(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("a file that another thread makes now is open to all"))
    atomic.write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_copy_makes_a_file_of_its_own(tmp_path):
    atomic.write_text(tmp_path / "a", "one")
    atomic.copy(tmp_path / "a", tmp_path / "sub" / "b")
    atomic.write_text(tmp_path / "a", "two")
    assert (tmp_path / "sub" / "b").read_text() == "one"


@pytest.mark.parametrize("existing", [False, True])
def test_replace_folder_leaves_only_the_new_content(tmp_path, existing):
    if existing:
        (tmp_path / "out" / "deep").mkdir(parents=True)
        (tmp_path / "out" / "deep" / "old").touch()
    (tmp_path / "work" / "new").mkdir(parents=True)
    (tmp_path / "work" / "new" / "file").touch()
    atomic.replace_folder(tmp_path / "work" / "new", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["file"]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def told(caplog):
    atomic._tell_weaker_once.cache_clear()
    yield caplog
    atomic._tell_weaker_once.cache_clear()


def test_a_folder_that_its_file_system_cannot_sync_is_passed_and_told_once(told):
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(os.open("/proc", os.O_RDONLY))
    for _ in range(2):
        atomic.sync(Path("/proc"))
    assert len(told.messages) == 1
    assert "cannot be synced" in told.messages[0]


def test_files_are_written_where_folders_cannot_be_synced(tmp_path, monkeypatch, told):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_text(tmp_path / "file", "x")
    (tmp_path / "new").mkdir()
    atomic.replace_folder(tmp_path / "new", tmp_path / "sub" / "folder")
    assert (tmp_path / "file").read_text() == "x"
    assert (tmp_path / "sub" / "folder").is_dir()
    assert len(told.messages) == 1


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path, monkeypatch, told):
    def fsync(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Invalid argument"):
        atomic.write_text(tmp_path / "file", "x")
    assert list(tmp_path.iterdir()) == []
