"""Augmentation: how randomness reaches it; image_augmenter against analytic cases and a loop over pixels."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_siamese.data import PairSequence, augment, image_augmenter
from keras_siamese.data.augment import seed_generators

IMAGES = np.random.default_rng(8).random((40, 6, 5, 2)).astype("float32")
LABELS = np.arange(40) // 4


class Upper:
    """A generator whose every draw is the upper end (`sign` -1: the lower), so that parameters are known exactly."""

    def __init__(self, sign=1):
        self.sign = sign

    def uniform(self, low, high, size):
        return np.full(size, high if self.sign > 0 else low, dtype=float)

    def integers(self, low, high, size):
        return np.full(size, high - 1 if self.sign > 0 else low)

    def random(self, size):
        return np.zeros(size)  # "less than a half": flips happen


def apply(images, sign=1, **options):
    return image_augmenter(**options)(images, Upper(sign))


# How an augmentation is called


def flattened(sequence, order=None):
    return [np.concatenate([tower.ravel() for tower in sequence[i][0]]) for i in order or range(len(sequence))]


def add_noise(batch, rng):
    return batch + rng.normal(size=batch.shape).astype("float32")


def layer():
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.Sequential([keras.layers.GaussianNoise(0.3), keras.layers.Dropout(0.1, seed=1)]),
        ]
    )


every_kind = pytest.mark.parametrize(
    "make",
    [
        lambda: add_noise,
        lambda: image_augmenter(rotation_range=40),
        pytest.param(layer, marks=pytest.mark.each_backend),
    ],
)


@every_kind
def test_augmented_batches_are_pure(make):
    expected = flattened(PairSequence(IMAGES, LABELS, batch_size=8, augment=make()))
    shared = PairSequence(IMAGES, LABELS, batch_size=8, augment=make())
    order = [3, 0, 4, 1, 2, 0, 3]
    for got, index in zip(flattened(shared, order), order, strict=True):
        np.testing.assert_array_equal(got, expected[index])
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: flattened(shared, [i])[0], order))
    for values, index in zip(got, order, strict=True):
        np.testing.assert_array_equal(values, expected[index])


@every_kind
def test_towers_batches_epochs_and_seeds_draw_independently(make):
    x = np.tile(np.arange(30.0, dtype="float32").reshape(1, 6, 5, 1), (40, 1, 1, 1))  # one image, so only draws differ
    seen = []
    for seed in (0, 1):
        sequence = PairSequence(x, LABELS, batch_size=20, augment=make(), seed=seed)
        for epoch in (0, 1):
            sequence.set_epoch(epoch)
            seen += [tower.tobytes() for index in (0, 1) for tower in sequence[index][0]]
    assert len(set(seen)) == 16


def test_frozen_pairs_of_an_augmented_sequence_are_its_plain_ones():
    plain, augmented = (PairSequence(IMAGES, LABELS, augment=made) for made in (None, add_noise))
    np.testing.assert_array_equal(plain.pairs(), augmented.pairs())
    np.testing.assert_array_equal(plain[0][1], augmented[0][1])


def test_plain_callables_are_not_given_a_generator():
    for plain in (lambda batch: batch[:, ::-1], np.flip, np.negative):
        expected = plain(IMAGES)
        np.testing.assert_array_equal(augment.Augmentation(plain)(IMAGES, None), expected)


def test_a_second_argument_without_a_default_is_the_generator_whatever_its_name(rng):
    def noisy(batch, source):
        return batch + source.random()

    def scaled(batch, factor=2):
        return factor * batch

    assert not np.array_equal(augment.Augmentation(noisy)(IMAGES, rng), IMAGES)
    np.testing.assert_array_equal(augment.Augmentation(scaled)(IMAGES, rng), 2 * IMAGES)


def test_a_second_argument_called_rng_may_have_a_default(rng):
    def noisy(batch, rng=None):
        return batch + rng.random()

    assert not np.array_equal(augment.Augmentation(noisy)(IMAGES, rng), IMAGES)


def test_dicts_are_handed_over_whole():
    def darken(batch, rng):
        return {"image": batch["image"] * rng.random(), "row": batch["row"]}

    sequence = PairSequence({"image": IMAGES, "row": np.arange(40)}, LABELS, batch_size=4, augment=darken)
    (left, right), _ = sequence[0]
    factors = [(tower["image"] / IMAGES[tower["row"]]) for tower in (left, right)]
    for factor in factors:
        np.testing.assert_allclose(factor, factor.flat[0], rtol=1e-5)
    assert factors[0].flat[0] != pytest.approx(factors[1].flat[0])


def test_layers_see_training_and_give_numpy():
    class Marks(keras.layers.Layer):
        def call(self, x, training=False):
            return x + 1 if training else x

    result = augment.Augmentation(Marks())(IMAGES, np.random.default_rng(0))
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, IMAGES + 1)


def test_seed_generators_are_found_wherever_a_layer_keeps_them():
    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.own = keras.random.SeedGenerator(1)
            self.several = [keras.layers.Dropout(0.5), {"deep": keras.random.SeedGenerator(2)}]
            self.again = self.several[0]

    holder = Holder()
    names = {generator.name for generator in seed_generators(keras.Sequential([holder]))}
    assert names >= {holder.own.name, holder.again.seed_generator.name, holder.several[1]["deep"].name}
    assert len(seed_generators(holder)) == 3


@pytest.mark.parametrize(
    ("broken", "got"),
    [
        (lambda batch, rng: batch[:-1], "{'batch': 7}"),
        (lambda batch, rng: {"image": batch}, r"""{"batch\['image'\]": 8}"""),
        (lambda batch, rng: batch.sum(), "{'batch': None}"),
    ],
)
def test_results_of_another_structure_are_refused(broken, got):
    sequence = PairSequence(IMAGES, LABELS, batch_size=8, augment=broken)
    with pytest.raises(ValueError, match=f"`augment` must return the structure.*{{'batch': 8}}; got {got}"):
        sequence[0]


def test_augment_must_be_callable():
    with pytest.raises(TypeError, match="`augment` must be a callable or a Keras layer; got 'flip'"):
        PairSequence(IMAGES, LABELS, augment="flip")


# image_augmenter, one parameter at a time


def test_rotation_by_a_quarter_is_rot90():
    square = IMAGES[:, :5]
    np.testing.assert_allclose(apply(square, rotation_range=90), np.rot90(square, axes=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(apply(square, -1, rotation_range=90), np.rot90(square, -1, axes=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(
        apply(square, rotation_range=90, fill_mode="constant"), np.rot90(square, axes=(1, 2)), atol=1e-5
    )
    np.testing.assert_allclose(apply(IMAGES, rotation_range=180), IMAGES[:, ::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("fill_mode", "pad"),
    [
        ("nearest", {"mode": "edge"}),
        ("reflect", {"mode": "symmetric"}),
        ("wrap", {"mode": "wrap"}),
        ("constant", {"mode": "constant", "constant_values": 0.25}),
    ],
)
@pytest.mark.parametrize("pixels", [2, 4])
def test_whole_shifts_move_pixels_and_fill_the_rest(fill_mode, pad, pixels):
    rows, columns = ((0, 0), (pixels, pixels), (0, 0), (0, 0)), ((0, 0), (0, 0), (pixels, pixels), (0, 0))
    options = {"fill_mode": fill_mode, "cval": 0.25}
    vertical = apply(IMAGES, height_shift_range=pixels + 1, **options)
    np.testing.assert_allclose(vertical, np.pad(IMAGES, rows, **pad)[:, 2 * pixels :], atol=1e-6)
    horizontal = apply(IMAGES, -1, width_shift_range=pixels + 1, **options)
    np.testing.assert_allclose(horizontal, np.pad(IMAGES, columns, **pad)[:, :, : -2 * pixels], atol=1e-6)


def test_wrapped_shift_is_a_roll():
    np.testing.assert_allclose(
        apply(IMAGES, width_shift_range=3, fill_mode="wrap"), np.roll(IMAGES, -2, axis=2), atol=1e-6
    )


def test_shift_units():
    by_pixels = apply(IMAGES, height_shift_range=3.0)
    np.testing.assert_allclose(apply(IMAGES, height_shift_range=0.5), by_pixels, atol=1e-6)  # half of six rows
    np.testing.assert_allclose(apply(IMAGES, height_shift_range=4), by_pixels, atol=1e-6)
    halves = apply(IMAGES, width_shift_range=1.5)
    np.testing.assert_allclose(halves[:, :, :3], (IMAGES[:, :, 1:4] + IMAGES[:, :, 2:5]) / 2, atol=1e-6)


def test_integer_shifts_are_whole_and_equally_likely(rng):
    ramp = np.tile(np.arange(9.0), (3000, 1, 1))
    shifted = image_augmenter(width_shift_range=3)(ramp, rng)[:, 0, 4] - 4
    values, counts = np.unique(shifted, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 500


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_flips_are_exact(dtype):
    images = (IMAGES * 255).astype(dtype)
    np.testing.assert_array_equal(apply(images, horizontal_flip=True), images[:, :, ::-1])
    np.testing.assert_array_equal(apply(images, vertical_flip=True), images[:, ::-1])


def test_flips_happen_half_of_the_time_on_their_own_axis(rng):
    one = np.arange(4).reshape(1, 2, 2)
    flipped = image_augmenter(horizontal_flip=True, vertical_flip=True)(np.repeat(one, 4000, axis=0), rng)
    kinds, counts = np.unique(flipped.reshape(-1, 4), axis=0, return_counts=True)
    assert len(kinds) == 4
    assert counts.min() > 850


def test_zoom_divides_sizes_about_the_centre():
    images = np.random.default_rng(0).random((3, 7, 9))
    grown = apply(images, zoom_range=(0.5, 0.5))
    np.testing.assert_allclose(grown[:, 1::2, ::2], images[:, 2:5, 2:7], atol=1e-12)
    np.testing.assert_allclose(grown[:, 1, 1], (images[:, 2, 2] + images[:, 2, 3]) / 2, atol=1e-12)
    shrunk = apply(images, zoom_range=(2, 2), fill_mode="constant", cval=-1)
    np.testing.assert_allclose(shrunk[:, 2:5, 2:7], images[:, 1::2, ::2], atol=1e-12)
    assert np.all(shrunk[:, [0, 6]] == -1)
    np.testing.assert_allclose(apply(images, zoom_range=0.5), apply(images, zoom_range=(0.5, 1.5)), atol=1e-12)


def test_zoom_of_height_and_width_are_drawn_apart(rng):
    ramps = np.stack([np.tile(np.arange(11.0), (11, 1))] * 2, axis=-1)
    ramps[..., 0] = ramps[..., 0].T
    zoomed = image_augmenter(zoom_range=(0.5, 1.0))(np.repeat(ramps[None], 50, axis=0), rng)
    height, width = zoomed[:, 6, 5, 0] - 5, zoomed[:, 5, 6, 1] - 5
    for factor in (height, width):
        assert 0.5 <= factor.min() < 0.6
        assert 0.9 < factor.max() <= 1.0
    assert np.corrcoef(height, width)[0, 1] < 0.5


def test_shear_moves_rows_along_columns():
    height_ramp = np.tile(np.arange(7.0)[:, None], (1, 1, 7))
    width_ramp = np.tile(np.arange(7.0), (1, 7, 1))
    np.testing.assert_allclose(apply(height_ramp, shear_range=60)[0, :, 3], 3 + 0.5 * (np.arange(7) - 3), atol=1e-9)
    sheared = apply(width_ramp, shear_range=30)[0]
    np.testing.assert_allclose(sheared[:, 3], 3 - 0.5 * (np.arange(7) - 3), atol=1e-9)


def test_brightness_multiplies_each_image():
    np.testing.assert_allclose(apply(IMAGES, brightness_range=(0.5, 1.5)), 1.5 * IMAGES)
    np.testing.assert_allclose(apply(IMAGES, -1, brightness_range=(0.5, 1.5)), 0.5 * IMAGES)
    ones = image_augmenter(brightness_range=(0.5, 1.5))(np.ones((500, 2, 2)), np.random.default_rng(1))
    assert np.all(ones == ones[:, :1, :1])
    assert 0.5 <= ones.min() < 0.52
    assert 1.48 < ones.max() <= 1.5


def test_integers_are_rounded_and_clipped():
    images = np.array([[[0, 5, 100, 250]]], dtype="uint8")
    assert apply(images, brightness_range=(1.5, 1.5)).tolist() == [[[0, 8, 150, 255]]]
    signed = np.array([[[-100, 100]]], dtype="int8")
    assert apply(signed, brightness_range=(2, 2)).tolist() == [[[-128, 127]]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int16", "int64", "bool"])
def test_dtype_and_shape_are_kept(dtype, rng):
    images = (IMAGES * 3).astype(dtype)
    before = images.copy()
    everything = image_augmenter(rotation_range=20, zoom_range=0.2, brightness_range=(0.5, 1.5))
    for batch in (images, images[..., 0]):
        result = everything(batch, rng)
        assert result.dtype == images.dtype
        assert result.shape == batch.shape
    np.testing.assert_array_equal(images, before)


def test_channels_move_together():
    options = {"rotation_range": 30, "zoom_range": 0.2}
    both = apply(IMAGES, **options)
    np.testing.assert_array_equal(both[..., 1], apply(IMAGES[..., 1], **options))


# image_augmenter against a loop over pixels


def outside(position, size, fill_mode):
    """The index inside 0 … size-1 that stands for `position`; None stands for cval."""
    if 0 <= position < size:
        return position
    if fill_mode == "constant":
        return None
    if fill_mode == "nearest":
        return 0 if position < 0 else size - 1
    if fill_mode == "wrap":
        return position % size
    return outside(-1 - position if position < 0 else 2 * size - 1 - position, size, fill_mode)


def pixel(image, row, column, fill_mode, cval):
    """Linear interpolation among the four neighbours of a point."""
    total = 0.0
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            inside = outside(i, image.shape[0], fill_mode), outside(j, image.shape[1], fill_mode)
            value = cval if None in inside else image[inside]
            total += (1 - abs(row - i)) * (1 - abs(column - j)) * value
    return total


def transformed(image, fill_mode, cval, *, angle, shear, zoom, shift, flip):
    """Follows each output pixel back to the input: flip, zoom, shear, shift, rotate, all about the centre."""
    angle, shear = np.deg2rad(angle), np.deg2rad(shear)
    middle_row, middle_column = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    result = np.zeros(image.shape)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            y, x = i - middle_row, j - middle_column
            y, x = (-y if flip[0] else y), (-x if flip[1] else x)
            y, x = zoom[0] * y, zoom[1] * x
            y, x = np.cos(shear) * y, x - np.sin(shear) * y
            y, x = y + shift[0], x + shift[1]
            y, x = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
            result[i, j] = pixel(image, y + middle_row, x + middle_column, fill_mode, cval)
    return result


OPTIONS = {
    "rotation_range": 25,
    "shear_range": 12,
    "zoom_range": (0.8, 1.3),
    "height_shift_range": 2.3,
    "width_shift_range": 0.3,
    "vertical_flip": True,
    "cval": 0.4,
}


def largest_difference(fill_mode, sign):
    images = np.random.default_rng(2).random((2, 8, 5))
    got = apply(images, sign, fill_mode=fill_mode, **OPTIONS)
    zoom = 1.3 if sign > 0 else 0.8
    expected = [
        transformed(
            image,
            fill_mode,
            0.4,
            angle=sign * 25,
            shear=sign * 12,
            zoom=(zoom, zoom),
            shift=(sign * 2.3, sign * 1.5),
            flip=(True, False),
        )
        for image in images
    ]
    return np.abs(got - expected).max()


@pytest.mark.parametrize("fill_mode", ["nearest", "reflect", "wrap", "constant"])
@pytest.mark.parametrize("sign", [1, -1])
def test_composed_map_equals_the_loop_over_pixels(fill_mode, sign):
    assert largest_difference(fill_mode, sign) < 1e-9


@pytest.mark.parametrize(("fill_mode", "wrong"), [("wrap", "wrap"), ("constant", "constant"), ("reflect", "mirror")])
def test_the_loop_rejects_the_wrong_mode_of_scipy(fill_mode, wrong, monkeypatch):
    monkeypatch.setitem(augment._SCIPY_MODES, fill_mode, wrong)
    assert largest_difference(fill_mode, 1) > 0.01


# image_augmenter as an object


def test_augmenter_is_pure_and_draws_for_each_image():
    same = np.repeat(IMAGES[:1], 30, axis=0)
    for name, amount in {"rotation_range": 90, "shear_range": 50, "zoom_range": 0.5, "height_shift_range": 3.0}.items():
        augmenter = image_augmenter(**{name: amount})
        first, again, other = (augmenter(same, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert len(np.unique(first.reshape(30, -1), axis=0)) == 30


def test_nothing_asked_for_changes_nothing(rng):
    np.testing.assert_array_equal(image_augmenter()(IMAGES, rng), IMAGES)
    assert repr(image_augmenter()) == "image_augmenter()"


def test_augmenter_survives_pickle_and_repr():
    augmenter = image_augmenter(rotation_range=20, zoom_range=(0.9, 1.2), fill_mode="wrap")
    assert pickle.loads(pickle.dumps(augmenter)) == augmenter
    assert eval(repr(augmenter)) == augmenter
    sequence = pickle.loads(pickle.dumps(PairSequence(IMAGES, LABELS, augment=augmenter)))
    assert repr(augmenter) in repr(sequence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation_range": -1}, r"`rotation_range` must be in \[0, inf\]; got -1"),
        ({"shear_range": float("nan")}, "`shear_range` must be in .*; got nan"),
        ({"width_shift_range": -0.1}, "`width_shift_range` must be in .*; got -0.1"),
        ({"height_shift_range": 1}, "`height_shift_range` as an integer k .* so 1 shifts nothing"),
        ({"zoom_range": 1.0}, r"`zoom_range` must be in \[0, 1\); got 1.0"),
        ({"zoom_range": (0, 1)}, r"`zoom_range\[0\]` must be in \(0, inf\]; got 0"),
        ({"zoom_range": (1.2, 0.8)}, r"`zoom_range\[1\]` must be in \[1.2, inf\]; got 0.8"),
        ({"zoom_range": (1, 2, 3)}, r"`zoom_range` must be \(low, high\); got \(1, 2, 3\)"),
        ({"brightness_range": 0.5}, r"`brightness_range` must be \(low, high\); got 0.5"),
        ({"brightness_range": (-1, 1)}, r"`brightness_range\[0\]` must be in \[0, inf\]; got -1"),
        ({"fill_mode": "mirror"}, "`fill_mode` must be one of 'constant', .*; got 'mirror'"),
        ({"cval": float("nan")}, "`cval` must be in .*; got nan"),
    ],
)
def test_augmenter_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        image_augmenter(**options)


@pytest.mark.parametrize("images", [np.zeros((4, 4)), np.zeros((1, 2, 2, 1, 1)), np.zeros((1, 2, 2), complex)])
def test_augmenter_refuses_what_is_no_batch_of_images(images, rng):
    with pytest.raises(ValueError, match="`images` must be real, of shape"):
        image_augmenter(rotation_range=5)(images, rng)
