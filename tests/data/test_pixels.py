"""Decoding to pixels: what a JPEG that is decoded at a part of its size shows, and what the module brings along."""

import numpy as np
import pytest

from keras_siamese.data import pixels
from tests.support.fresh_python import fresh

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(5)


def soft(width, height):
    """An image of soft blobs of colour."""
    blobs = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype="uint8"))
    return blobs.resize((width, height), Image.Resampling.BICUBIC)


def read(path, size, mode="RGB", interpolation="bilinear"):
    image = pixels.decode(str(path), {"size": size, "mode": mode, "interpolation": interpolation})
    assert (image.dtype, image.shape) == (np.uint8, (*size, len(mode)))
    return image.astype(float)


def by_hand(path, size, mode="RGB", interpolation="bilinear"):
    image = Image.open(path).convert(mode).resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
    return np.asarray(image, float).reshape(*size, len(mode))


@pytest.fixture
def drafts(monkeypatch):
    """The sizes at which JPEGs were decoded."""
    found = []
    resized = pixels._resized
    monkeypatch.setattr(
        pixels, "_resized", lambda image, *details: found.append(image.size) or resized(image, *details)
    )
    return found


@pytest.mark.parametrize(
    ("whole", "size", "decoded"),
    [
        ((250, 250), (62, 62), (125, 125)),
        ((250, 250), (31, 31), (63, 63)),  # a row and a column beyond the image
        ((250, 333), (45, 31), (125, 167)),
        ((250, 333), (84, 20), (250, 333)),
        ((250, 250), (112, 112), (250, 250)),
        ((250, 250), (10, 250), (250, 250)),
        ((801, 803), (50, 50), (101, 101)),
        ((801, 803), (10, 10), (101, 101)),
    ],
)
def test_a_jpeg_decoded_at_a_part_of_its_size_shows_the_whole(tmp_path, drafts, whole, size, decoded):
    soft(*whole).save(tmp_path / "x.jpg", quality=95)
    for mode in ("RGB", "L", "RGBA"):
        difference = np.abs(read(tmp_path / "x.jpg", size, mode) - by_hand(tmp_path / "x.jpg", size, mode))
        assert difference.mean() < 1.0
        assert difference.max() < 10
    assert drafts == 3 * [decoded]


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_other_filters_resize_the_whole_jpeg(tmp_path, interpolation):
    soft(90, 70).save(tmp_path / "x.jpg")
    for mode in ("RGB", "L"):
        arguments = (tmp_path / "x.jpg", (20, 30), mode, interpolation)
        np.testing.assert_array_equal(read(*arguments), by_hand(*arguments))


def test_a_png_is_decoded_whole(tmp_path):
    soft(90, 70).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read(tmp_path / "x.png", (20, 30)), by_hand(tmp_path / "x.png", (20, 30)))


@pytest.mark.parametrize("stored", [(320, 160), (321, 163)])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_reduced_jpegs_stand_upright(tmp_path, drafts, stored, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = soft(*stored)
    image.save(tmp_path / "x.jpg", exif=exif, quality=95)
    image.save(tmp_path / "plain.jpg", quality=95)
    upright = np.rot90(np.asarray(Image.open(tmp_path / "plain.jpg")), {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    size = (40, 80) if orientation in (1, 3) else (80, 40)
    expected = np.asarray(Image.fromarray(upright).resize(size[::-1], Image.Resampling.BILINEAR), float)
    difference = np.abs(read(tmp_path / "x.jpg", size) - expected)
    assert difference.mean() < 1.0
    assert difference.max() < 10
    is_reduced = stored == (320, 160) or orientation == 1
    assert (max(drafts[0]) < 200) == is_reduced


def test_files_above_the_limit_are_read_in_pieces(tmp_path, monkeypatch):
    for name in ("x.png", "x.jpg", "x.bmp"):
        soft(40, 30).save(tmp_path / name)
        once = read(tmp_path / name, (12, 10))
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "_READ_AT_ONCE", 10)
            np.testing.assert_array_equal(read(tmp_path / name, (12, 10)), once)


def test_the_module_brings_neither_keras_nor_the_package():
    code = "import sys, json, runpy; runpy.run_path(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"
    brought = {name.split(".")[0] for name in fresh(code, pixels.__file__)}
    assert "numpy" in brought
    assert not brought & {"keras", "keras_siamese", "torch", "tensorflow", "jax", "sklearn", "joblib"}
