"""Reading an image file as an array, and checking many files before training.

Contract: paths in, float32 `(height, width, channels)` out, in [0, 255] as of Keras's `image_dataset_from_directory`.
An `ImageDecoder` holds only options, so threads and processes can share it. `images` imports this module; Pillow is
imported when it is needed.

    decode = ImageDecoder((105, 105), "grayscale", "bilinear")
    image = decode("wren/0001.png")
    refused = check_files(decode, paths)             # [(path, reason), …]
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np

from keras_siamese._checks import check_choice, check_installed, check_integer
from keras_siamese.data import pixels, processes

MODES = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
SECONDS_WITHOUT_BAR = 5
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
    - With "box", "bilinear" and "hamming", a JPEG of at least four times `image_size` is first decoded at 1/2, 1/4 or
      1/8 of its size, but not below twice `image_size`, as Pillow does for thumbnails. For "grayscale", its colours are
      not decoded. With the other filters, the whole image is resized.

    The file must be of one of `pixels.FORMATS`, whatever its name. The arguments are those of `ImageFiles`.
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

    @property
    def options(self):
        """The options that `pixels` takes."""
        return {"size": self.image_size, "mode": MODES[self.color_mode], "interpolation": self.interpolation}

    def __call__(self, path):
        return pixels.decode(path, self.options).astype(np.float32)

    def decode_all(self, paths, workers=1):
        """The images at `paths` `(n,)` as `(n, height, width, channels)`: uint8, or float32 if one has 16 bits.

        If `workers` is above 1, another process decodes them; see `processes`.
        """
        return processes.decode_all(paths, self.options, workers)


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
        with pixels.opened(path) as image:
            image.verify()
        decode(path)
    except MemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
