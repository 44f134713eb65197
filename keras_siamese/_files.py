"""Write files so that neither a full disk nor an error beside the training does harm.

Contract: the package writes whole files by `replacing`, `write_text`, `write_bytes` or `write_arrays` only. These write
to a temporary name in the same folder and then rename the file. So a file is either the old one or the whole new one.
Logs grow line by line and are appended to. `SideWork` does what is done beside a training run, such as writing a
report. If it raises an error, it keeps the error and warns, and training goes on. Any module may import this one; it
imports no other module of the package.

    write_text("report.html", page)
    side = SideWork()
    path = side.write("The report", "report.html", diagnosis.to_html)    # where it was written, or None
    side.errors                                                          # [SideError("The report", …)]
"""

import contextlib
import os
import shutil
import tempfile
import traceback
import uuid
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

PACKAGE = os.path.dirname(os.path.abspath(__file__))


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path in the folder of `path`, whose file takes the place of `path` when the block ends.

    If the block raises, `path` is as it was before. A symbolic link stays one; its target is replaced. What is no
    regular file, such as `/dev/stdout`, is written to directly, as is a file in a folder that takes no new files.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{uuid.uuid4().hex[:12]}{path.suffix}")
    if path.exists() and not (path.is_file() and os.access(path.parent, os.W_OK)):
        draft = path
    try:
        yield draft
        if draft != path:
            flush(draft)
            if path.exists():
                shutil.copymode(path, draft)
            os.replace(draft, path)
    finally:
        if draft != path:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def flush(path):
    """Wait until the content of the file is on the disk: if the power fails after it was renamed, it is whole."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_text(path, text, errors="strict"):
    """Write `text` to `path` in UTF-8, as `replacing` does; `errors` is that of `str.encode`."""
    write_bytes(path, text.encode("utf-8", errors))


def write_bytes(path, content):
    """Write the bytes `content` to `path`, as `replacing` does."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_arrays(path, arrays):
    """Write `arrays` by name to the `.npz` file at `path`, as `replacing` does."""
    with replacing(path) as draft:
        np.savez(draft, **arrays)


class SideWorkWarning(UserWarning):
    """Warns that something beside the training failed, such as writing a report, while training goes on."""


@dataclass(frozen=True)
class SideError:
    """What failed beside a training run.

    Attributes:
        what: what failed, such as "The report".
        why: the error, in one line.
        where: the path that could not be written, or the line of code that raised.
        written: the path in another folder where the file is now, or None.
    """

    what: str
    why: str
    where: str = ""
    written: str | None = None

    def __str__(self):
        where = f" at {self.where}" if self.where else ""
        return f"{self.what} failed{where}: {self.why}" + (f"; it is in {self.written}" if self.written else "")


class SideWork:
    """Runs work beside a training run. Its errors are kept and warned of once; they do not end the run.

    Args:
        strict: whether errors are raised.

    Attributes:
        errors: the `SideError`s so far, a list.
    """

    def __init__(self, strict=False):
        self.strict, self.errors, self.folder = strict, [], None

    def __deepcopy__(self, memo):  # copies of a callback belong to other fits
        return type(self)(self.strict)

    def begin(self):
        """Forget the errors of an earlier run, and where its files went."""
        self.errors, self.folder = [], None

    @contextlib.contextmanager
    def allowing(self, what, then="training goes on"):
        """A block whose errors end the block, and not the run."""
        try:
            yield
        except Exception as error:
            self.failed(what, error, then=then)

    def failed(self, what, error, *, where=None, then="training goes on", written=None):
        """Keep and warn of an `error`, or raise it if `strict`.

        Args:
            what: what failed.
            error: the exception.
            where: the path that could not be written; None for the line that raised.
            then: what happens now, the end of the warning.
            written: the path in another folder where the file is now.

        Returns:
            The `SideError`.
        """
        if self.strict:
            raise error
        why, is_path = reason_of(error), where is not None
        kept = SideError(what, why, str(where) if is_path else place_of(error), written and str(written))
        alike = [one for one in self.errors if one.where == kept.where]
        if all(one.what != what for one in alike):  # the first reason is kept; a later one may differ in each epoch
            self.errors.append(kept)
        if all(one.what != what and one.why != why for one in alike):
            problem = f"could not be written to {where}" if is_path else f"failed ({kept.where})"
            warning = SideWorkWarning(f"{what} {problem}: {why}; {then}")
            warning.__cause__ = error  # where warnings are errors, the traceback is shown
            warnings.warn(warning, stacklevel=3)
        return kept

    def moved(self, what, where, written):
        """Tell that a file which could not be written during the run is now `written` elsewhere, or lost if None."""
        written = None if written is None else str(written)
        for place, one in enumerate(self.errors):
            if one.where == str(where):
                self.errors[place] = replace(one, written=written)
        is_now = "is lost: no other folder could be written to" if written is None else f"is in {written}"
        warnings.warn(SideWorkWarning(f"{what}, which could not be written to {where}, {is_now}"), stacklevel=3)

    def write(self, what, path, write):
        """Call `write(path)`; if it raises, call it with a path of the same name in another folder.

        Returns:
            The path that was written, or None.
        """
        try:
            write(path)
            return path
        except Exception as error:
            written = None if self.strict else self.rescued(lambda folder: write(folder / Path(path).name))
            if written is not None:
                written /= Path(path).name
            then = "it could not be written to another folder, either" if written is None else f"it is in {written}"
            self.failed(what, error, where=path, then=then, written=written)
            return written

    def rescued(self, write):
        """Call `write(folder)` with a new folder in the current one, or in that for temporary files if this fails.

        Returns:
            The folder, or None if neither can be written. Later calls use the same one.
        """
        makers = [lambda: rescue_folder(os.curdir), lambda: rescue_folder(None)]
        for make in makers if self.folder is None else [lambda: self.folder, *makers]:
            with contextlib.suppress(Exception):
                self.folder = make()
                try:
                    write(self.folder)
                    return self.folder
                except BaseException:
                    with contextlib.suppress(OSError):
                        self.folder.rmdir()  # only if it is empty
                    self.folder = None
                    raise
        return None


def rescue_folder(parent):
    """A new folder in `parent`, or in the folder for temporary files if it is None."""
    return Path(tempfile.mkdtemp(prefix="keras_siamese_rescued_", dir=parent)).resolve()


def reason_of(error):
    """An error in one line, its class and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def place_of(error):
    """The file and line that raised `error`, the last ones in this package if there are any."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
