"""Reproducible augmentation of batches, with ImageDataGenerator's transformations of images.

Contract: a sequence passes one tower's batch, an array `(batch, …)` or a dict of arrays, and a NumPy generator that is
made from `(seed, epoch, index, tower)`. The augmentation returns the same structure with as many samples. It can be:

- a callable `(batch, rng)` that takes all randomness from `rng`, such as an `image_augmenter`;
- a Keras layer or Sequential, called with `training=True` after its seed generators are set from `rng` (on PyTorch,
  Keras's Dropout has a seed generator only if it is given a `seed`);
- a callable `(batch)`: the sequence does not control its randomness, so an epoch may not be repeatable.

`sequence` and users import this module.

    PairSequence(x, labels, augment=image_augmenter(rotation_range=20, zoom_range=0.1))
    PairSequence(x, labels, augment=lambda batch, rng: batch + rng.normal(0, 0.1, batch.shape).astype("float32"))
    PairSequence(x, labels, augment=keras.layers.RandomFlip("horizontal"))
"""

from __future__ import annotations

import dataclasses
import inspect
import threading

import keras
import numpy as np

from keras_siamese._checks import as_array, check_choice, check_number
from keras_siamese.data.sources import map_arrays, named_arrays

_LAYERS = threading.Lock()  # held from setting a layer's seeds until it has been called: sequences may share a layer


class Augmentation:
    """Calls any accepted kind of `augment` as `(batch, rng) → batch` of NumPy arrays, and checks the result.

    A callable gets `rng` if its second argument has no default or is named `rng`.
    """

    def __init__(self, augment):
        if not callable(augment):
            raise TypeError(f"`augment` must be a callable or a Keras layer; got {augment!r}")
        self.augment = augment
        self._is_layer = isinstance(augment, keras.layers.Layer)
        self._takes_rng = not self._is_layer and _takes_rng(augment)

    def __call__(self, batch, rng):
        if self._is_layer:
            result = _call_seeded(self.augment, batch, rng)
        else:
            result = self.augment(batch, rng) if self._takes_rng else self.augment(batch)
        result = map_arrays(_to_numpy, result)
        if _outline(result) != _outline(batch):
            wanted = f"the structure that it gets, with the same number of samples: {_outline(batch)}"
            raise ValueError(f"`augment` must return {wanted}; got {_outline(result)}")
        return result

    def __repr__(self):
        return repr(self.augment)


def _takes_rng(augment):
    try:
        parameters = list(inspect.signature(augment).parameters.values())
    except ValueError:  # some built-in functions have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (positional[1].name == "rng" or positional[1].default is inspect.Parameter.empty)


def _to_numpy(array):
    return array if isinstance(array, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(array))


def _outline(x):
    """The structure of a batch and its number of samples, as `{path: n}`; n is None for a scalar."""
    return {path: array.shape[0] if array.ndim else None for path, array in named_arrays("batch", x)}


def _call_seeded(layer, batch, rng):
    with _LAYERS:
        if not layer.built:
            layer(batch, training=True)  # some layers create their generators in the first call
        for generator in seed_generators(layer):
            state = rng.integers(0, 2**31 - 1, size=2)  # fits the state's dtype on every backend
            generator.state.assign(state.astype(generator.state.dtype))
        return layer(batch, training=True)


def seed_generators(layer):
    """The `keras.random.SeedGenerator`s of a layer and the layers inside it, each once, in a fixed order."""
    found, seen, waiting = [], set(), [layer]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, keras.random.SeedGenerator):
            found.append(item)
            continue
        children = vars(item) if isinstance(item, keras.layers.Layer) else item
        if isinstance(children, (dict, list, tuple)):
            waiting.extend(children.values() if isinstance(children, dict) else children)
    return found


# SciPy's names of ImageDataGenerator's fill modes. In SciPy's own "wrap" the first and the last pixel coincide
# (abc|bcd…), and its own "constant" blanks a pixel that rounding puts 1e-16 outside the image.
_SCIPY_MODES = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class image_augmenter:
    """Random rotations, shifts, shears, zooms, flips and brightness, with ImageDataGenerator's argument names.

    The object is a callable `(images, rng) → images` for batches `(n, height, width)` or `(n, height, width, channels)`
    of any real dtype. The result has the same dtype; integers are rounded and clipped to their range. Each image gets
    its own random values. One affine map about the image's centre makes all geometric changes, with linear
    interpolation by SciPy. Unlike Keras's preprocessing layers it depends on `rng` only, gives the same result on all
    backends, and is safe in worker processes.

    Args:
        rotation_range: degrees ≥ 0; the angle is uniform in ± this, positive is counter-clockwise.
        width_shift_range: the shift is uniform in ± this: a float below 1 is a fraction of the width, a float from 1 on
            a number of pixels. An integer k means whole pixels from -(k-1) to k-1, each equally likely.
        height_shift_range: the same, vertically. (ImageDataGenerator itself confuses height and width.)
        shear_range: degrees ≥ 0; the angle s is uniform in ± this. A row at height r from the centre moves by r·sin s,
            and heights shrink by cos s, as in ImageDataGenerator.
        zoom_range: (low, high) with 0 < low ≤ high, or a float z in [0, 1) for (1-z, 1+z). Height and width are divided
            by two values drawn from this interval: values below 1 magnify.
        horizontal_flip, vertical_flip: whether to mirror the image in this direction with probability 1/2.
        brightness_range: (low, high) with 0 ≤ low ≤ high. Values of any range are multiplied by a factor drawn from
            this interval; floats are not clipped.
        fill_mode: how a row abcd continues outside the image: "nearest" aaaa|abcd|dddd, "reflect" dcba|abcd|dcba,
            "wrap" abcd|abcd|abcd, "constant" kkkk|abcd|kkkk with k = `cval`.
        cval: the value for "constant".

    >>> augment = image_augmenter(horizontal_flip=True)
    >>> images = np.array([[[1, 2, 3]]] * 6, dtype="uint8")
    >>> flipped = augment(images, np.random.default_rng(1))
    >>> np.unique(flipped[:, 0], axis=0).tolist(), flipped.dtype
    ([[1, 2, 3], [3, 2, 1]], dtype('uint8'))
    >>> augment
    image_augmenter(horizontal_flip=True)
    """

    rotation_range: float = 0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    zoom_range: float | tuple[float, float] = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness_range: tuple[float, float] | None = None
    fill_mode: str = "nearest"
    cval: float = 0.0

    def __post_init__(self):
        check_number("rotation_range", self.rotation_range, low=0)
        check_number("shear_range", self.shear_range, low=0)
        for name in ("width_shift_range", "height_shift_range"):
            amount = getattr(self, name)
            check_number(name, amount, low=0)
            if isinstance(amount, (int, np.integer)) and amount == 1:
                raise ValueError(f"`{name}` as an integer k is at most k - 1 pixels, so 1 shifts nothing; use 1.0 or 2")
        if isinstance(self.zoom_range, (tuple, list)):
            _check_interval("zoom_range", self.zoom_range, open_low=True)
        else:
            check_number("zoom_range", self.zoom_range, low=0, high=1, open_high=True)
        if self.brightness_range is not None:
            _check_interval("brightness_range", self.brightness_range)
        check_choice("fill_mode", self.fill_mode, list(_SCIPY_MODES))
        check_number("cval", self.cval)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        images = as_array("images", images)
        if images.ndim not in (3, 4) or not np.can_cast(images.dtype, np.longdouble):
            shapes = "(n, height, width) or (n, height, width, channels)"
            raise ValueError(f"`images` must be real, of shape {shapes}; got {images.dtype} of shape {images.shape}")
        result = images.astype(np.result_type(images.dtype, np.float32))
        still = image_augmenter(brightness_range=self.brightness_range, fill_mode=self.fill_mode, cval=self.cval)
        if self != still:
            linear, offset = self._draw_maps(len(images), *images.shape[1:3], rng)
            result = self._resample(result, linear, offset)
        if self.brightness_range is not None:
            factors = rng.uniform(*self.brightness_range, size=len(images))
            result *= factors.reshape(-1, *[1] * (images.ndim - 1)).astype(result.dtype)
        return _cast_back(result, images.dtype)

    def _draw_maps(self, n, height, width, rng):
        """The map from output to input (row, column) of each image: linear `(n, 2, 2)` and offset `(n, 2)`."""
        angle = np.deg2rad(rng.uniform(-self.rotation_range, self.rotation_range, n))
        shear = np.deg2rad(rng.uniform(-self.shear_range, self.shear_range, n))
        ranges = (self.height_shift_range, height), (self.width_shift_range, width)
        shift = np.stack([_draw_shift(rng, amount, size, n) for amount, size in ranges], 1)
        interval = self.zoom_range
        if not isinstance(interval, (tuple, list)):
            interval = 1 - interval, 1 + interval
        zoom = rng.uniform(*interval, size=(n, 2))
        flip = np.where((rng.random((n, 2)) < 0.5) & [self.vertical_flip, self.horizontal_flip], -1.0, 1.0)
        zero, one = np.zeros(n), np.ones(n)
        rotation = _matrices(np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))
        shearing = _matrices(np.cos(shear), zero, -np.sin(shear), one)
        linear = rotation @ shearing * (zoom * flip)[:, None, :]
        centre = (np.array([height, width]) - 1) / 2
        # input = R (S Z F (output - centre) + shift) + centre, in ImageDataGenerator's order
        offset = centre - linear @ centre + np.squeeze(rotation @ shift[:, :, None], -1)
        return linear, offset

    def _resample(self, images, linear, offset):
        from scipy import ndimage  # slow to import, and needed here only

        planes = images if images.ndim == 4 else images[..., None]
        result = np.empty_like(planes)
        options = {"order": 1, "mode": _SCIPY_MODES[self.fill_mode], "cval": self.cval}
        for i, channel in np.ndindex(len(planes), planes.shape[3]):
            plane = i, slice(None), slice(None), channel
            ndimage.affine_transform(planes[plane], linear[i], offset[i], output=result[plane], **options)
        return result.reshape(images.shape)

    def __repr__(self) -> str:
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return f"image_augmenter({', '.join(f'{f.name}={value!r}' for f, value in values if value != f.default)})"


def _check_interval(name, interval, open_low=False):
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        raise ValueError(f"`{name}` must be (low, high); got {interval!r}")
    low = check_number(f"{name}[0]", interval[0], low=0, open_low=open_low)
    check_number(f"{name}[1]", interval[1], low=low)


def _draw_shift(rng, amount, size, n):
    """Random shifts `(n,)` in pixels along an axis of `size` pixels."""
    if isinstance(amount, (int, np.integer)):
        return rng.integers(1 - amount, amount, n).astype(float) if amount else np.zeros(n)
    pixels = amount * size if amount < 1 else amount
    return rng.uniform(-pixels, pixels, n)


def _matrices(a, b, c, d):
    """Matrices [[a, b], [c, d]] `(n, 2, 2)` from their entries `(n,)`."""
    return np.stack([a, b, c, d], axis=1).reshape(-1, 2, 2)


def _cast_back(values, dtype):
    if np.issubdtype(dtype, np.bool_):
        return values >= 0.5
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype, copy=False)
