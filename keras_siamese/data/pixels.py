"""Decodes image files to pixels, in this process or, run as a program, for another process.

Contract: imports only NumPy and Pillow. A process that decodes therefore starts in a fraction of a second. `decoding`
imports this module and checks the options; `processes` runs it as a program.

    options = {"size": (105, 105), "mode": "L", "interpolation": "bilinear"}
    images = decode_all(["wren/0001.png", "wren/0002.png"], options)          # uint8 (2, 105, 105, 1)
"""

import functools
import io
import json
import math
import mmap
import os
import signal
import stat
import sys
import warnings

import numpy as np

# A file is read by what it holds, whatever its name says. Pillow gives EPS files to Ghostscript, which runs programs.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA")
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
# Filters that reach no further than a pixel of the result. They differ from each other about as much as from a JPEG
# that is decoded at a half of its size, so only they allow that.
_SMALL_FILTERS = ("box", "bilinear", "hamming")
_GAP = 2  # as in Pillow's thumbnails: with 1, single values of photos differ by up to a fifth of the range
_READ_AT_ONCE = 1 << 22  # bytes; larger files are read in pieces
# Not blocking, so that opening a pipe does not wait. Windows has O_BINARY instead.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def decode_all(paths, options, memory=None):
    """The images at `paths` `(n,)` as `(n, height, width, channels)`: uint8, or float32 if one has 16 bits.

    A repeated path is decoded once. `memory` is a buffer in which uint8 images are put, if it is given.

    Raises:
        OSError: for a file that cannot be decoded, with its path.
    """
    height, width = options["size"]
    shape = (len(paths), height, width, len(options["mode"]))
    images = np.empty(shape, np.uint8) if memory is None else np.frombuffer(memory, np.uint8, math.prod(shape))
    images, places = images.reshape(shape), {}
    for i, path in enumerate(paths):
        if path in places:
            images[i] = images[places[path]]
            continue
        places[path] = i
        try:
            image = decode(path, options)
        except MemoryError:
            raise
        except Exception as error:
            raise OSError(f"The image {path!r} cannot be read: {type(error).__name__}: {error}") from error
        if image.dtype != images.dtype:
            images = images.astype(np.float32)
        images[i] = image
    return images


def decode(path, options):
    """The image at `path` as `(height, width, channels)` in [0, 255]: uint8, or float32 if it has 16 bits.

    `options` is a dict: "size" is (height, width), "mode" is "L", "RGB" or "RGBA", and "interpolation" names a filter.
    """
    from PIL import Image, ImageOps

    (height, width), mode, interpolation = options["size"], options["mode"], options["interpolation"]
    with opened(path) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            problem = f"{image.width} × {image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS, {limit}"
            raise ValueError(f"{problem}: the file could be a decompression bomb")
        box = None
        try:
            if image.format == "PNG":
                image.load()  # tags may follow the pixels
            orientation = _orientation(image)
            if image.format in ("JPEG", "MPO") and interpolation in _SMALL_FILTERS:
                box = _reduce_jpeg(image, mode, (width, height), orientation)
            if orientation != 1:
                image = ImageOps.exif_transpose(image)
        except MemoryError as error:  # a tag may claim any size
            raise ValueError("a tag of the image claims more memory than there is") from error
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            return _from_16_bits(image, mode, (width, height), interpolation)
        if image.mode in ("I", "F"):
            raise ValueError(f"32-bit pixels (Pillow's mode {image.mode}) have no known range to scale to [0, 255]")
        image = _resized(_converted(image, mode), (width, height), interpolation, box)
        return np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, len(mode))


def _orientation(image):
    """The EXIF orientation of an image, 1 … 8; 1 is upright."""
    if image.format in ("PNG", "JPEG") and not any("exif" in str(key) or "xmp" in str(key) for key in image.info):
        return 1  # `getexif` takes a tenth of the time of a small image
    return image.getexif().get(_ORIENTATION, 1)


def _reduce_jpeg(image, mode, size, orientation):
    """Lets Pillow decode a JPEG at the least of 1/8, 1/4 and 1/2 of its size that is not below `_GAP` times `size`.

    Returns the part of the reduced image that shows the whole image, or None if it is not reduced.
    """
    width, height = size[::-1] if orientation in _SIDEWAYS else size
    scale = min(image.width // (_GAP * width), image.height // (_GAP * height))
    scale = next((power for power in (8, 4, 2) if scale >= power), 1)
    is_whole = image.width % scale == image.height % scale == 0
    if scale > 1 and not is_whole and orientation != 1:
        scale = 1  # the part that shows the image would have to be turned, too
    full = image.size
    image.draft(mode, (full[0] // scale, full[1] // scale))  # "L" is decoded without the colours
    return (0, 0, full[0] / scale, full[1] / scale) if scale > 1 and not is_whole else None


def _converted(image, mode):
    if "transparency" in image.info:
        image = image.convert("RGBA")  # otherwise Pillow warns or guesses when it converts to other modes
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image, mode, size, interpolation):
    from PIL import Image

    values = np.asarray(image).astype(np.float32) / 257
    grey = np.asarray(_resized(Image.fromarray(values), size, interpolation))
    grey = np.clip(grey, 0, 255)  # bicubic and lanczos overshoot; of 8-bit images Pillow itself clips this
    channels = [grey] * min(3, len(mode)) + [np.full_like(grey, 255)] * (len(mode) == 4)
    return np.stack(channels, axis=-1)


def _resized(image, size, interpolation, box=None):
    from PIL import Image

    if image.size == size and box is None:
        return image
    return image.resize(size, getattr(Image.Resampling, interpolation.upper()), box)


def opened(path):
    """The Pillow image in the regular file at `path`, of one of `FORMATS`; its pixels are not read yet."""
    from PIL import Image

    file = os.open(path, _FLAGS)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(f"{path} must be a regular file")  # reading a pipe would wait, and a device never ends
        # Pillow reads in small pieces, each of which lets other threads of Python run.
        content = os.read(file, facts.st_size) if facts.st_size <= _READ_AT_ONCE else b""
    finally:
        os.close(file)
    is_whole = 0 < len(content) == facts.st_size
    return Image.open(io.BytesIO(content) if is_whole else path, formats=formats())


@functools.cache
def formats():
    """Those of `FORMATS` that the installed Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def settings():
    """Pillow's settings of a process that change what it decodes, for `apply` in another process."""
    from PIL import Image, ImageFile

    return {"max_pixels": Image.MAX_IMAGE_PIXELS, "truncated": ImageFile.LOAD_TRUNCATED_IMAGES}


def apply(chosen):
    from PIL import Image, ImageFile

    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = chosen["max_pixels"], chosen["truncated"]


def serve(requests, answers, memory):
    """Answers each request, a line of JSON with `paths`, `options` and `settings`, until there are no more.

    The pixels are put into `memory`. The answer is the name of their dtype, or an empty line if a file cannot be
    decoded.
    """
    for line in requests:
        request = json.loads(line)
        apply(request["settings"])
        try:
            images = decode_all(request["paths"], request["options"], memory)
            if images.dtype != np.uint8:
                np.frombuffer(memory, images.dtype, images.size)[:] = images.ravel()
            answer = images.dtype.name
        except Exception:  # whoever asked decodes the files again and raises the error
            answer = ""
        answers.write(f"{answer}\n".encode())
        answers.flush()


def main(memory):
    """The program: `memory` is the number of an open file, or on Windows the name of shared memory and its size."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the process that asks ends
    warnings.simplefilter("ignore")
    name, size = memory.split(":")
    shared = mmap.mmap(-1, int(size), tagname=name) if os.name == "nt" else mmap.mmap(int(name), int(size))
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    formats()
    serve(sys.stdin.buffer, answers, shared)
