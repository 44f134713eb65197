"""A cache of decoded images in memory, bounded in bytes.

Contract: an `ImageCache` holds images by their row number. 8-bit images stay 8-bit, a quarter of the float32 of a
batch. It keeps the images that come first and never replaces one. An epoch visits each image about equally often, so
no choice of images is better than another, and if the oldest were replaced, images that are visited in order would
never be found. Threads share a cache; pickles and copies begin empty. `images` uses this module.

    cache = ImageCache(2**30)
    images = cache.fetch(rows, read)                  # (m, height, width, channels), like `read(rows)`
"""

import threading

import numpy as np

_ALONGSIDE = 256  # bytes that Python needs for an array and its entry


class ImageCache:
    """Keeps images `(height, width, channels)` by row, until they take `limit` bytes.

    Attributes:
        limit: bytes, including 256 for the Python objects of each image.
        bytes: bytes taken.

    >>> cache = ImageCache(10**6)
    >>> first = cache.fetch(np.array([3, 5]), lambda rows: rows[:, None, None, None].astype("uint8"))
    >>> len(cache), cache.fetch(np.array([5]), None).tolist()
    (2, [[[[5]]]])
    """

    def __init__(self, limit):
        self.limit = limit
        self._clear()

    def _clear(self):
        self.bytes = 0
        self._images = {}
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._images)

    def fetch(self, rows, read):
        """The images at `rows`, integers `(m,)`, also repeated, of which `read(rows)` reads those that are not held."""
        held = [self._images.get(row) for row in rows.tolist()]
        missing = rows[[image is None for image in held]]
        if len(missing) == len(rows):
            images = read(rows)
        else:
            fresh = iter(read(missing)) if len(missing) else iter(())
            images = np.stack([next(fresh) if image is None else image for image in held])
        self._keep(rows, held, images)
        return images

    def _keep(self, rows, held, images):
        for row, image, found in zip(rows.tolist(), images, held, strict=True):
            if found is not None:
                continue
            size = image.nbytes + _ALONGSIDE
            with self._lock:
                if self.bytes + size > self.limit:
                    return
                if row not in self._images:
                    self._images[row] = image.copy()  # a part of `images` would keep all of it in memory
                    self.bytes += size

    def __getstate__(self):
        return {"limit": self.limit}

    def __setstate__(self, state):
        self.limit = state["limit"]
        self._clear()
