"""Files are replaced whole or not at all, and an error beside a training run is kept and does not end it."""

import copy
import errno
import os
import stat

import pytest

from keras_siamese._files import SideError, SideWork, SideWorkWarning, replacing, write_bytes, write_text


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_text(path, "\udcff", errors="backslashreplace")
    assert path.read_bytes() == b"\\udcff"
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00" and os.listdir(tmp_path) == ["report.html"]


def test_what_raises_in_the_middle_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("good")
    with pytest.raises(OSError, match="No space"), replacing(path) as draft:
        draft.write_text("ha")
        full_disk()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udcff")
    assert path.read_text() == "good" and os.listdir(tmp_path) == ["report.html"]


def test_the_temporary_file_is_beside_it_and_keeps_its_suffix(tmp_path):
    with replacing(tmp_path / "model.onnx") as draft:
        assert draft.parent == tmp_path and draft.suffix == ".onnx"
        draft.touch()


def test_links_and_permissions_stay(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.json", tmp_path / "a.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with replacing(pipe) as draft:
        assert draft == pipe
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_error_is_kept_and_warned_of_once_a_reason(recwarn):
    side = SideWork()
    for what, error in (("The cause a", ZeroDivisionError("x\ny")), ("The cause b", ZeroDivisionError("x\ny"))):
        with pytest.warns(SideWorkWarning) if what.endswith("a") else no_warning(recwarn):
            assert side.failed(what, error, then="it is not examined").why == "ZeroDivisionError: x y"
    assert side.errors == [SideError(what, "ZeroDivisionError: x y") for what in ("The cause a", "The cause b")]
    assert str(side.errors[0]) == "The cause a failed: ZeroDivisionError: x y"
    with no_warning(recwarn):  # the same thing again, for a reason that differs a little
        side.failed("The cause a", ZeroDivisionError("x at 12:00"))
    assert len(side.errors) == 2
    side.begin()
    assert side.errors == []


class no_warning:
    def __init__(self, recwarn):
        self.recwarn = recwarn

    def __enter__(self):
        self.before = len(self.recwarn)

    def __exit__(self, *_):
        assert len(self.recwarn) == self.before


def test_where_it_was_raised_is_kept():
    side = SideWork()
    with pytest.warns(SideWorkWarning, match=r"^The look failed \(test_files.py, line \d+\): OSError: .*; training"):
        try:
            full_disk()
        except OSError as error:
            side.failed("The look", error)
    assert side.errors[0].where.startswith("test_files.py, line ")


def test_a_warning_that_is_an_error_shows_what_was_raised():
    with pytest.raises(SideWorkWarning) as raised:  # as it is in these tests
        SideWork().failed("The look", ZeroDivisionError("x"))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_strict_raises_the_error_itself(tmp_path):
    side, error = SideWork(strict=True), ZeroDivisionError("x")
    with pytest.raises(ZeroDivisionError) as raised:
        side.failed("The look", error)
    assert raised.value is error and side.errors == []
    with pytest.raises(OSError, match="No space"):
        side.write("The report", tmp_path / "a", full_disk)
    assert copy.deepcopy(side).strict and copy.deepcopy(side) is not side


def fails_in(folder):
    """A writer to whose `folder` nothing can be written."""

    def write(path):
        if path.parent == folder:
            full_disk()
        write_text(path, "page")

    return write


def test_a_file_goes_to_another_folder_if_its_own_is_full(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    side = SideWork()
    with pytest.warns(SideWorkWarning, match=r"could not be written to .*a.html: OSError.*; it is in .*a.html"):
        written = side.write("The report", tmp_path / "a.html", fails_in(tmp_path))
    assert written.read_text() == "page" and written.parent.parent == tmp_path / "here"
    assert side.errors == [
        SideError("The report", "OSError: [Errno 28] No space left on device", str(tmp_path / "a.html"), str(written))
    ]
    with pytest.warns(SideWorkWarning):
        assert side.write("Its JSON", tmp_path / "a.json", fails_in(tmp_path)).parent == written.parent


def test_the_folder_for_temporary_files_is_the_last_resort(tmp_path, monkeypatch):
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    for folder in (here, temporary):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def write(folder):
        if folder.parent == here:
            full_disk()
        write_text(folder / "a", "page")

    assert SideWork().rescued(write).parent == temporary and list(here.iterdir()) == []
    os.rmdir(here)  # the current folder is gone
    assert SideWork().rescued(lambda folder: write_text(folder / "a", "page")).parent == temporary


def test_nothing_is_left_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    side = SideWork()
    with pytest.warns(SideWorkWarning, match="it could not be written to another folder, either"):
        assert side.write("The report", tmp_path / "a.html", full_disk) is None
    assert list(tmp_path.iterdir()) == [] and side.errors[0].written is None


def test_a_file_that_was_moved_is_told(tmp_path):
    side = SideWork()
    with pytest.warns(SideWorkWarning):
        side.failed("The run log", OSError("full"), where="run.jsonl")
    with pytest.warns(SideWorkWarning, match=r"which could not be written to run.jsonl, is in other/run.jsonl"):
        side.moved("The run log", "run.jsonl", "other/run.jsonl")
    assert side.errors[0].written == "other/run.jsonl" and "; it is in other/run.jsonl" in str(side.errors[0])
    with pytest.warns(SideWorkWarning, match="is lost"):
        side.moved("The run log", "run.jsonl", None)
