"""Reading an image file as an array, and checking many files before training.

Contract: paths in, float32 `(height, width, channels)` out, in [0, 255] as of Keras's `image_dataset_from_directory`.
An `ImageDecoder` holds only options, so threads and processes can share it. `images` imports this module; Pillow is
imported when it is needed.

    decode = ImageDecoder((105, 105), "grayscale", "bilinear")
    image = decode("wren/0001.png")
    refused = check_files(decode, paths)             # [(path, reason), …]
"""

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np

from keras_siamese._checks import check_choice, check_installed, check_integer

MODES = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# A file is read by what it holds, whatever its name says. Pillow gives EPS files to Ghostscript, which runs programs.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA")
SECONDS_WITHOUT_BAR = 5
_ORIENTATION = 0x0112  # the EXIF tag
_FILES_AT_ONCE = 1024  # given to the threads together, so that a million files do not make a million futures


@dataclass(frozen=True)
class ImageDecoder:
    """Reads an image file as float32 `(height, width, channels)` in [0, 255].

    These steps are applied in this order:

    - Of several frames the first is used. The image is turned upright by its EXIF orientation.
    - 16-bit grey is divided by 257, so 65535 becomes 255 and nothing is clipped. Pillow reads the high bytes of 16-bit
      colour. 1-bit pixels become 0 and 255. 32-bit pixels are refused, because their range is unknown.
    - "rgb" and "grayscale" drop an alpha channel, without a background; for "rgba", images without alpha are opaque.
      Colour becomes grey by 0.299 R + 0.587 G + 0.114 B. Palettes become colours; CMYK becomes RGB without its profile.
    - The image is resized to `image_size`, ignoring its aspect ratio, with Pillow's antialiasing.

    The file must be of one of `FORMATS`, whatever its name. The arguments are those of `ImageFiles`.
    """

    image_size: tuple[int, int]
    color_mode: str = "rgb"
    interpolation: str = "bilinear"

    def __post_init__(self):
        if not isinstance(self.image_size, (tuple, list)) or len(self.image_size) != 2:
            raise ValueError(f"`image_size` must be (height, width); got {self.image_size!r}")
        sides = (check_integer(f"image_size[{i}]", side, low=1) for i, side in enumerate(self.image_size))
        object.__setattr__(self, "image_size", tuple(sides))
        check_choice("color_mode", self.color_mode, list(MODES))
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_installed("PIL.Image", "images")

    @property
    def shape(self):
        """`(height, width, channels)`."""
        return (*self.image_size, len(MODES[self.color_mode]))

    def __call__(self, path):
        from PIL import Image, ImageOps

        with opened(path) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                problem = f"{image.width} × {image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS, {limit}"
                raise ValueError(f"{problem}: the file could be a decompression bomb")
            try:
                if image.getexif().get(_ORIENTATION, 1) != 1:
                    image = ImageOps.exif_transpose(image)
            except MemoryError as error:  # a tag may claim any size
                raise ValueError("a tag of the image claims more memory than there is") from error
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
                return self._from_16_bits(image)
            if image.mode in ("I", "F"):
                raise ValueError(f"32-bit pixels (Pillow's mode {image.mode}) have no known range to scale to [0, 255]")
            return np.asarray(self._resized(self._converted(image)), dtype=np.float32).reshape(self.shape)

    def _converted(self, image):
        if "transparency" in image.info:
            image = image.convert("RGBA")  # otherwise Pillow warns or guesses when it converts to other modes
        mode = MODES[self.color_mode]
        return image if image.mode == mode else image.convert(mode)

    def _from_16_bits(self, image):
        from PIL import Image

        values = np.asarray(image).astype(np.float32) / 257
        grey = np.asarray(self._resized(Image.fromarray(values)))
        grey = np.clip(grey, 0, 255)  # bicubic and lanczos overshoot; of 8-bit images Pillow itself clips this
        channels = [grey] * min(3, self.shape[2]) + [np.full_like(grey, 255)] * (self.shape[2] == 4)
        return np.stack(channels, axis=-1)

    def _resized(self, image):
        from PIL import Image

        height, width = self.image_size
        if image.size == (width, height):
            return image
        return image.resize((width, height), getattr(Image.Resampling, self.interpolation.upper()))


def opened(path):
    """The Pillow image in the regular file at `path`, of one of `FORMATS`; its pixels are not read yet."""
    from PIL import Image

    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} must be a regular file")  # reading a pipe would wait, and a device never ends
    return Image.open(path, formats=formats())


@functools.cache
def formats():
    """Those of `FORMATS` that the installed Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_files(decode, paths):
    """Decodes each of `paths` once, in threads, and lists `(position, reason)` of those that cannot be decoded.

    A progress bar appears after five seconds.
    """
    refused = []
    started, bar = time.monotonic(), None
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _FILES_AT_ONCE):
            block = paths[start : start + _FILES_AT_ONCE]
            reasons = pool.map(lambda path: reason_against(decode, path), block)
            for position, reason in enumerate(reasons, start=start):
                if reason is not None:
                    refused.append((position, reason))
                if bar is None and time.monotonic() - started > SECONDS_WITHOUT_BAR:
                    bar = keras.utils.Progbar(len(paths), unit_name="image")
                if bar is not None:
                    bar.update(position + 1)
    return refused


def reason_against(decode, path):
    """The reason why `path` cannot be decoded, or None. Pillow raises errors of all types for invalid images.

    `verify` is called first, because decoding alone ignores PNG's checksums and a missing end of the file.
    """
    try:
        with opened(path) as image:
            image.verify()
        decode(path)
    except MemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
