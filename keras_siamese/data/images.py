"""Image files as samples, read when a batch asks for them.

Contract: `ImageFiles` is a source (see `sources`) of files, `ImageFolder` of the files in a folder, `from_dataframe` of
those in a table. They hold paths, and decoded images only if `cache_bytes` is given. All files are decoded once when
the source is made, and those that cannot be decoded are reported together. Users and `explicit` import this module.

    folder = ImageFolder("faces", image_size=(112, 112))                  # faces/<identity>/<image>
    train, valid = split_identities(folder, folder.labels, (0.8, 0.2))    # views: nothing is read
    sequence = PairSequence(*train, batch_size=64, workers=4)             # up to four processes decode, on four cores
"""

from __future__ import annotations

import hashlib
import logging
import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_siamese._checks import check_choice, check_integer, check_labels, check_path, is_missing
from keras_siamese._types import ArrayLike, ImageOptions, StrPath, Unpack
from keras_siamese.data import processes
from keras_siamese.data.cache import ImageCache
from keras_siamese.data.decoding import ImageDecoder, check_files
from keras_siamese.data.sources import first_few, row_numbers

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
# Files that operating systems add to folders; the names of others begin with a dot.
_LITTER = ("thumbs.db", "desktop.ini")
_LISTED = 10  # files that an error lists
logger = logging.getLogger(__name__)


class ImageFiles:
    """Image files as a source `(n, height, width, channels)`, float32 in [0, 255]; each is read when a batch needs it.

    `ImageDecoder` of `keras_siamese.data.decoding` describes how a file becomes an array, including 16-bit, palette,
    alpha and EXIF orientation.

    Args:
        paths: `(n,)` paths.
        image_size: `(height, width)` to which every image is resized.
        color_mode: "rgb", "grayscale" or "rgba", for 3, 1 or 4 channels.
        root: the folder that relative paths start from; files outside it, also through links, are refused.
        interpolation: how to resize: "bilinear" (default), "nearest", "box", "hamming", "bicubic" or "lanczos".
        check: whether to decode every file once now; otherwise an invalid file raises an error when it is read.
        on_error: "raise" reports all files that cannot be read in one error, "skip" leaves them out.
        cache_bytes: bytes of memory for decoded images, ≥ 0; by default 0. Images are kept as they are read until this
            memory is full, and are not decoded again, even if their files change. An 8-bit image takes height · width ·
            channels bytes and 256 more. Batches do not depend on the cache. Copies of the source, also those in other
            processes, begin with an empty one.

    Attributes:
        paths: paths of the files kept, in the given order; `kept` `(len(self),)` has their positions among all paths.
        skipped: `(path, reason)` of the files left out.
        shape, dtype: `(len(self), height, width, channels)`, float32.

    Raises:
        ValueError: for files that cannot be read, are outside `root`, or have more pixels than Pillow's
            `MAX_IMAGE_PIXELS`, naming them; if no file is left.
        ImportError: if Pillow is missing; the message names the extra that installs it.

    >>> import tempfile, os.path, PIL.Image
    >>> paths = [os.path.join(tempfile.mkdtemp(), f"{grey}.png") for grey in (0, 128, 255)]
    >>> for grey, path in zip((0, 128, 255), paths):
    ...     PIL.Image.new("L", (20, 10), grey).save(path)
    >>> files = ImageFiles(paths, image_size=(4, 6), color_mode="grayscale")
    >>> files
    ImageFiles(3 images of 4 × 6, grayscale)
    >>> files[[2, 0, 2]][:, 0, 0, 0].tolist()
    [255.0, 0.0, 255.0]
    """

    dtype = np.dtype("float32")

    def __init__(
        self,
        paths: Iterable[StrPath],
        image_size: tuple[int, int],
        color_mode: Literal["rgb", "grayscale", "rgba"] = "rgb",
        *,
        root: StrPath | None = None,
        interpolation: str = "bilinear",
        check: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
        cache_bytes: int = 0,
    ) -> None:
        self._set_reading(image_size, color_mode, interpolation, cache_bytes)
        self.root = None if root is None else check_folder("root", root)
        paths = [_check_path(f"paths[{i}]", path) for i, path in enumerate(paths)]
        refused = {}
        if self.root is not None:
            paths = [os.path.join(self.root, path) for path in paths]
            real_root = os.path.realpath(self.root)
            refused = {i: "outside `root`" for i, path in enumerate(paths) if not is_inside(path, real_root)}
        self._keep("paths", paths, refused, check, on_error)

    def _set_reading(self, image_size, color_mode, interpolation, cache_bytes):
        self._decode = ImageDecoder(image_size, color_mode, interpolation)
        self._cache = ImageCache(check_integer("cache_bytes", cache_bytes, low=0))

    def _keep(self, name, paths, refused, check, on_error):
        """Keeps those of `paths` that are not `refused`, `{position: reason}`, and can be decoded."""
        check_choice("on_error", on_error, ("raise", "skip"))
        readable = [i for i in range(len(paths)) if i not in refused]
        if check:
            bad = check_files(self._decode, [paths[i] for i in readable])
            refused = {**refused, **{readable[position]: reason for position, reason in bad}}
        self.skipped = tuple((paths[i], refused[i]) for i in sorted(refused))
        if refused and on_error == "raise":
            lines = [f"`{name}` must hold images that can be read; {len(refused)} of {len(paths)} files are not:"]
            lines += [f"  {path}: {reason}" for path, reason in self.skipped[:_LISTED]]
            lines += [f"  and {len(refused) - _LISTED} more"] * (len(refused) > _LISTED)
            raise ValueError("\n".join([*lines, 'Repair or remove them, or pass on_error="skip" to leave them out']))
        if refused:
            logger.warning("%d of %d files are left out; `skipped` lists the reasons", len(refused), len(paths))
        self.kept = np.array([i for i in range(len(paths)) if i not in refused], dtype=np.intp)
        self.paths = tuple(paths[i] for i in self.kept)
        self.shape = (len(self), *self._decode.shape)
        if not self.paths:
            raise ValueError(f"`{name}` must hold at least one image; got {len(paths)} files, {len(refused)} skipped")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: ArrayLike | slice) -> np.ndarray:
        """The images at `rows`, integers `(m,)` or a slice: `(m, height, width, channels)`; one at an integer."""
        if isinstance(rows, numbers.Integral):
            return self[[rows]][0]
        return self.read_rows(row_numbers(rows, len(self)))

    @property
    def most_workers(self) -> int:
        """The number of cores: decoding takes all of a core's time, so more workers than that are slower."""
        return processes.cores()

    def read_rows(self, rows: ArrayLike, workers: int = 1) -> np.ndarray:
        """The images at `rows`, integers `(m,)` ≥ 0; if `workers` is above 1, another process decodes them."""
        images = self._cache.fetch(rows, lambda rows: self._decode_rows(rows, workers))
        return images.astype(self.dtype, copy=False)

    def digests(self, rows: Iterable[int]) -> Iterator[bytes]:
        """What the images at `rows`, integers `(m,)` ≥ 0, follow from, as bytes: options, and a digest of each file."""
        yield repr(self._decode).encode()
        for row in rows:
            yield hashlib.sha256(Path(self.paths[row]).read_bytes()).digest()

    def _decode_rows(self, rows, workers):
        return self._decode.decode_all([self.paths[row] for row in rows], workers)

    def _facts(self):
        skipped = f"; {len(self.skipped)} files skipped" if self.skipped else ""
        height, width = self._decode.image_size
        return f"of {height} × {width}, {self._decode.color_mode}{skipped}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images {self._facts()})"


class ImageFolder(ImageFiles):
    """The images of a folder with a subfolder for each identity, as a source `(n, height, width, channels)`.

    An identity is the path, relative to `path`, of the folder that has the image, at any depth: "bo" for bo/1.png,
    "Greek/character05" for Greek/character05/0394_05.png. Samples are sorted by identity, then by file name, so their
    order is the same on every machine.

    Hidden files and folders (a leading dot), Thumbs.db and desktop.ini are ignored. Other files are refused if they are
    not images, or are directly in `path` and so have no identity. Links are followed within `path`. A link is refused
    if it leads out of `path`, nowhere, or back to a folder that contains it, and a link to a folder if it is inside of
    another linked folder: a few folders with such links have more paths than can be listed.

    Args:
        path: the folder.
        extensions: the ends of images' names, in upper or lower case.
        image_size, color_mode, interpolation, check, on_error, cache_bytes: as in `ImageFiles`; "skip" leaves out
            refused files.

    Attributes:
        labels: identities `(n,)`, strings.
        paths, kept, skipped, shape, dtype: as in `ImageFiles`.

    Raises:
        ValueError: if `path` is not a folder, or has no subfolders or no images; for files as in `ImageFiles`.

    >>> import tempfile, os, PIL.Image
    >>> path = tempfile.mkdtemp()
    >>> for name in ("bo/2.png", "ada/1.png", "bo/1.png"):
    ...     os.makedirs(os.path.join(path, os.path.dirname(name)), exist_ok=True)
    ...     PIL.Image.new("RGB", (8, 8), "white").save(os.path.join(path, name))
    >>> folder = ImageFolder(path, image_size=(4, 4))
    >>> folder
    ImageFolder(3 images of 2 identities, of 4 × 4, rgb)
    >>> folder.labels.tolist(), folder.shape
    (['ada', 'bo', 'bo'], (3, 4, 4, 3))
    """

    def __init__(
        self,
        path: StrPath,
        image_size: tuple[int, int],
        color_mode: Literal["rgb", "grayscale", "rgba"] = "rgb",
        *,
        extensions: Sequence[str] = EXTENSIONS,
        interpolation: str = "bilinear",
        check: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
        cache_bytes: int = 0,
    ) -> None:
        self._set_reading(image_size, color_mode, interpolation, cache_bytes)
        self.root = check_folder("path", path)
        found = sorted(walk_images(self.root, _check_extensions(extensions)))
        if not any(label or reason.startswith("a link") for label, _, reason in found):
            wanted = f"a folder of images for each identity, as {os.path.join(self.root, 'ada', '1.png')}"
            problem = f"all {len(found)} files are in no subfolder" if found else f"no files below {self.root!r}"
            raise ValueError(f"`path` must have {wanted}; {problem}")
        refused = {i: reason for i, (_, _, reason) in enumerate(found) if reason}
        paths = [os.path.join(self.root, *filter(None, label.split("/")), name) for label, name, _ in found]
        self._keep("path", paths, refused, check, on_error)
        self.labels = np.array([found[i][0] for i in self.kept])

    def _facts(self):
        return f"of {len(np.unique(self.labels))} identities, {super()._facts()}"


def walk_images(root, extensions):
    """Yields `(label, name, reason)` of each file below `root`; `reason` says why it is refused, or is empty."""
    real_root = os.path.realpath(root)
    waiting = [("", root, {real_root}, False)]
    while waiting:
        label, folder, above, is_linked = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name.lower() in _LITTER:
                    continue
                if entry.is_symlink() and not is_inside(entry.path, real_root):
                    yield label, name, "a link that leads out of the folder"
                elif entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real in above:
                        yield label, name, "a link to a folder that contains it"
                    elif is_linked and entry.is_symlink():
                        yield label, name, "a link to a folder inside of another linked folder"
                    else:
                        below = (f"{label}/{name}".lstrip("/"), entry.path, above | {real})
                        waiting.append((*below, is_linked or entry.is_symlink()))
                elif not entry.is_file():
                    yield label, name, "not a file"
                elif not name.lower().endswith(extensions):
                    yield label, name, f"not an image: its name ends in none of {' '.join(extensions)}"
                else:
                    yield label, name, "" if label else "not in the folder of an identity"


def is_inside(path, real_root):
    """Whether `path`, with all links followed, is in the folder `real_root`."""
    real = os.path.realpath(path)
    return real == real_root or real.startswith(os.path.join(real_root, ""))


def check_folder(name, path):
    """Returns the absolute path of an existing folder, as a string."""
    path = os.path.abspath(_check_path(name, path))
    if not os.path.isdir(path):
        what = "is a file" if os.path.exists(path) else "does not exist"
        raise ValueError(f"`{name}` must be a folder; {path!r} {what}")
    return path


def _check_path(name, path):
    check_path(name, path)
    if not (text := os.fsdecode(path)):
        raise ValueError(f"`{name}` must be a path; got an empty string")
    return text


def _check_extensions(extensions):
    if isinstance(extensions, str) or not all(isinstance(end, str) and end for end in extensions):
        raise ValueError(f"`extensions` must be strings such as ('.png', '.jpg'); got {extensions!r}")
    return tuple(end.lower() for end in extensions)


def from_dataframe(
    frame: Any,
    path_column: str,
    label_column: str,
    root: StrPath | None = None,
    *,
    image_size: tuple[int, int],
    **options: Unpack[ImageOptions],
) -> tuple[ImageFiles, np.ndarray]:
    """Makes a source of the images, and an array of the identities, in a table with a row for each sample.

    Args:
        frame: pandas DataFrame, or another object with a column `(n,)` for each name, such as a dict of lists.
        path_column: name of the column of paths.
        label_column: name of the column of identities, integers or strings.
        root, image_size: as in `ImageFiles`.
        **options: `color_mode`, `interpolation`, `check`, `on_error` and `cache_bytes` of `ImageFiles`.

    Returns:
        `(files, labels)`: `ImageFiles`, and the identities `(len(files),)` of the files kept.

    Raises:
        ValueError: for a missing column; for invalid or missing values, with their rows; for files as in `ImageFiles`.

    >>> import tempfile, PIL.Image
    >>> root = tempfile.mkdtemp()
    >>> PIL.Image.new("RGB", (8, 8)).save(f"{root}/1.png")
    >>> frame = {"file": ["1.png", "1.png"], "bird": ["wren", "lark"]}
    >>> from_dataframe(frame, "file", "bird", root, image_size=(4, 4))
    (ImageFiles(2 images of 4 × 4, rgb), array(['wren', 'lark'], dtype='<U4'))
    """
    paths = _column(frame, "path_column", path_column, "paths", _is_path)
    labels = _column(frame, "label_column", label_column, "whole numbers or strings", _is_label)
    labels = check_labels("label_column", labels, length=len(paths))
    files = ImageFiles(paths, image_size, root=root, **options)
    return files, labels[files.kept]


def _is_path(value):
    return isinstance(value, (str, os.PathLike)) and bool(os.fspath(value))


def _is_label(value):
    return not is_missing(value) and not (isinstance(value, numbers.Real) and not float(value).is_integer())


def _column(frame, argument, name, expected, is_valid):
    names = list(getattr(frame, "columns", frame))
    if name not in names:
        raise ValueError(f"`{argument}` must be a column of `frame`; got {name!r}, and it has {names}")
    values = list(frame[name])
    wrong = [row for row, value in enumerate(values) if not is_valid(value)]
    if wrong:
        found = f"{values[wrong[0]]!r} or similar in rows {first_few(wrong)}, counted from 0"
        raise ValueError(f"`{argument}` must hold {expected}; {name!r} holds {found}")
    return values
