"""The cache of decoded images: bounded, shared by threads, and without effect on what is read."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_siamese.data import ImageFiles, PairSequence, pixels
from keras_siamese.data.cache import ImageCache

SHAPE = (4, 3, 1)
EACH = 4 * 3 + 256


class Source:
    """Images of one value, their row; `asked` lists the rows that were read."""

    def __init__(self, dtype="uint8"):
        self.asked, self.dtype = [], dtype

    def read(self, rows):
        self.asked += rows.tolist()
        return np.broadcast_to(rows[:, None, None, None], (len(rows), *SHAPE)).astype(self.dtype)


def values(images):
    assert images.shape[1:] == SHAPE
    return images[:, 0, 0, 0].tolist()


def test_each_image_is_read_once():
    cache, source = ImageCache(10**6), Source()
    for rows in ([3, 1, 2], [5, 1, 4, 3], [1], [], [4, 5, 1]):
        assert values(cache.fetch(np.array(rows, int), source.read)) == rows
    assert source.asked == [3, 1, 2, 5, 4]
    assert (len(cache), cache.bytes) == (5, 5 * EACH)


def test_bytes_are_bounded_and_what_came_first_stays():
    cache, source = ImageCache(3 * EACH - 1), Source()
    for _ in range(3):
        assert values(cache.fetch(np.arange(5), source.read)) == [0, 1, 2, 3, 4]
    assert (len(cache), cache.bytes) == (2, 2 * EACH)
    assert source.asked == [0, 1, 2, 3, 4] + 2 * [2, 3, 4]
    nothing = ImageCache(0)
    assert values(nothing.fetch(np.arange(2), source.read)) == [0, 1]
    assert len(nothing) == 0


def test_batches_can_be_changed_and_do_not_stay_in_memory():
    cache, source = ImageCache(10**6), Source()
    first = cache.fetch(np.arange(3), source.read)
    first[:] = 77
    second = cache.fetch(np.arange(3), source.read)
    assert values(second) == [0, 1, 2]
    second[:] = 78
    assert values(cache.fetch(np.arange(4), source.read)) == [0, 1, 2, 3]
    assert all(image.base is None for image in cache._images.values())


def test_16_bit_images_join_8_bit_ones():
    cache = ImageCache(10**6)
    cache.fetch(np.array([1]), Source().read)
    deep = Source("float32")
    images = cache.fetch(np.array([0, 1]), lambda rows: deep.read(rows) + np.float32(0.5))
    assert images.dtype == np.float32
    assert values(images) == [0.5, 1.0]
    assert values(cache.fetch(np.array([1, 0]), None)) == [1.0, 0.5]


def test_threads_share_it():
    cache, source = ImageCache(40 * EACH), Source()
    rng = np.random.default_rng(0)
    batches = [rng.choice(100, 20, replace=False) for _ in range(200)]
    with ThreadPoolExecutor(8) as threads:
        for rows, images in zip(
            batches, threads.map(lambda rows: cache.fetch(rows, source.read), batches), strict=True
        ):
            assert values(images) == rows.tolist()
    assert (len(cache), cache.bytes) == (40, 40 * EACH)


# In a source of files


@pytest.fixture
def paths(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in range(8):
        image.new("RGB", (5, 4), (number, 2 * number, 255)).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(8)]


def test_files_are_decoded_once_and_batches_are_the_same(paths, monkeypatch):
    labels = np.repeat([0, 1, 2, 3], 2)
    plain, cached = (ImageFiles(paths, (4, 5), check=False, cache_bytes=size) for size in (0, 10**6))
    for seed in range(2):
        one, other = (PairSequence(files, labels, batch_size=3, seed=seed) for files in (plain, cached))
        for index in range(len(one)):
            for a, b in zip([*one[index][0]], [*other[index][0]], strict=True):
                assert a.dtype == b.dtype == np.float32
                np.testing.assert_array_equal(a, b)
    decoded = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda path, options: decoded.append(path) or decode(path, options))
    assert cached[:].shape == (8, 4, 5, 3)
    del decoded[:]
    np.testing.assert_array_equal(cached[[5, 0, 5]], plain[[5, 0, 5]])
    assert decoded == [str(paths[5]), str(paths[0])]  # those of `plain`


def test_copies_begin_empty(paths):
    files = ImageFiles(paths, (4, 5), cache_bytes=10**6)
    files[:]
    assert len(files._cache) == 8
    for other in (copy.deepcopy(files), pickle.loads(pickle.dumps(files))):
        assert (other._cache.limit, len(other._cache), other._cache.bytes) == (10**6, 0, 0)
        np.testing.assert_array_equal(other[:], files[:])
        assert len(other._cache) == 8


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1e9, TypeError), (True, TypeError), (None, TypeError)])
def test_refuses_other_sizes(paths, value, error):
    with pytest.raises(error, match="`cache_bytes` must be"):
        ImageFiles(paths, (4, 5), cache_bytes=value)
