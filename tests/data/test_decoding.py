"""Decoding an image file to an array, and checking many files."""

import os
import struct
import zlib

import numpy as np
import pytest

from keras_siamese.data import decoding
from keras_siamese.data.decoding import ImageDecoder, check_files, reason_against

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (6, 5), dtype="uint8")
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype="uint8")
ALPHA = RNG.integers(0, 256, (6, 5), dtype="uint8")


def read(path, color_mode="rgb", image_size=(6, 5), interpolation="bilinear"):
    decode = ImageDecoder(image_size, color_mode, interpolation)
    image = decode(path)
    assert image.shape == decode.shape
    return image


def stacked(grey):
    return np.stack([grey] * 3, axis=-1)


def luma(colour):
    """Rec. 601 grey by its weights, pixel by pixel, rounded."""
    result = np.zeros(colour.shape[:2])
    for i, j in np.ndindex(result.shape):
        red, green, blue = (int(value) for value in colour[i, j])
        result[i, j] = 0.299 * red + 0.587 * green + 0.114 * blue
    return result


@pytest.fixture
def save(tmp_path):
    def save(image, name="x.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_greyscale_rgb_and_rgba_of_each_other(save):
    grey, colour, both = save(GREY, "g.png"), save(COLOUR, "c.png"), save(np.dstack([COLOUR, ALPHA]), "a.png")
    opaque = np.full((6, 5), 255)
    np.testing.assert_array_equal(read(grey, "grayscale")[..., 0], GREY)
    np.testing.assert_array_equal(read(grey), stacked(GREY))
    np.testing.assert_array_equal(read(grey, "rgba"), np.dstack([stacked(GREY), opaque]))
    np.testing.assert_array_equal(read(colour), COLOUR)
    np.testing.assert_array_equal(read(colour, "rgba"), np.dstack([COLOUR, opaque]))
    np.testing.assert_array_equal(read(both, "rgba"), np.dstack([COLOUR, ALPHA]))
    np.testing.assert_array_equal(read(both), COLOUR)
    for path in (colour, both):
        np.testing.assert_allclose(read(path, "grayscale")[..., 0], luma(COLOUR), atol=0.51)


def test_grey_with_alpha_drops_it(save):
    path = save(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]))
    np.testing.assert_array_equal(read(path, "grayscale")[..., 0], GREY)
    np.testing.assert_array_equal(read(path), stacked(GREY))
    np.testing.assert_array_equal(read(path, "rgba")[..., 3], ALPHA)


def test_dtype_and_range_are_those_of_image_dataset_from_directory(save):
    image = read(save(np.array([[0, 255]], "uint8")), image_size=(1, 2))
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 255)


def test_one_bit(save):
    mask = GREY > 127
    for color_mode, expected in (("grayscale", mask[..., None] * 255), ("rgb", stacked(mask * 255))):
        np.testing.assert_array_equal(read(save(Image.fromarray(mask)), color_mode), expected)


def test_palettes_become_their_colours(save):
    palette = Image.fromarray(COLOUR).quantize(16)
    expected = np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)]
    for name in ("x.png", "x.gif"):
        np.testing.assert_array_equal(read(save(palette, name)), expected)
    see_through = save(palette, "t.png", transparency=bytes([0] * 8 + [255] * 8))
    np.testing.assert_array_equal(read(see_through), expected)
    rgba = read(see_through, "rgba")
    np.testing.assert_array_equal(rgba[..., 3], np.where(np.asarray(palette) < 8, 0, 255))
    np.testing.assert_allclose(read(see_through, "grayscale")[..., 0], luma(expected), atol=0.51)


def save_deep(path, deep):
    """Writes 16-bit grey; PGM by hand, because older versions of Pillow read it but cannot write it."""
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 %d %d 65535\n" % deep.shape[::-1] + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(path)
    return path


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
@pytest.mark.parametrize("image_size", [(6, 5), (3, 4)])
def test_16_bits_are_scaled_not_clipped(tmp_path, save, name, image_size):
    deep = RNG.integers(0, 65536, (6, 5)).astype("uint16")
    deep[0, 0], deep[1, 1] = 65535, 256
    if image_size == (6, 5):
        expected, path = deep / 257, save_deep(tmp_path / name, deep)
        np.testing.assert_allclose(read(path, "grayscale")[..., 0], expected, atol=0.01)
        np.testing.assert_allclose(read(path), stacked(expected), atol=0.01)
        rgba = read(path, "rgba")
        np.testing.assert_array_equal(rgba[..., 3], 255)
        np.testing.assert_allclose(rgba[..., 1], expected, atol=0.01)
    same = [read(save_deep(tmp_path / name, GREY.astype("uint16") * 257), "grayscale", image_size)]
    same.append(read(save(GREY, "8.png"), "grayscale", image_size))
    np.testing.assert_allclose(*same, atol=1.0)  # 8-bit resizing rounds
    edges = np.kron(np.eye(2), np.full((4, 4), 65535)).astype("uint16")
    sharp = read(save_deep(tmp_path / name, edges), interpolation="lanczos")
    assert (sharp.min(), sharp.max()) == (0, 255)


def test_16_bit_colour_is_its_high_bytes(tmp_path):
    deep = RNG.integers(0, 65536, (4, 3, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 3, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_allclose(read(tmp_path / "deep.png", image_size=(4, 3)), deep // 256, atol=1)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_32_bits_are_refused(save, dtype):
    path = save(GREY.astype(dtype), "x.tif")
    with pytest.raises(ValueError, match=r"32-bit pixels \(Pillow's mode [IF]\)"):
        read(path)


def test_cmyk_becomes_rgb(save):
    image = Image.fromarray(COLOUR).convert("CMYK")
    path = save(image, "x.tif")
    np.testing.assert_array_equal(read(path), np.asarray(image.convert("RGB")))


ORIENTED = {  # EXIF's numbers: how the stored image is turned to stand upright
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("orientation", [1, *ORIENTED])
def test_images_stand_upright(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ORIENTED.get(orientation, lambda image: image)(COLOUR)
    path = save(COLOUR, exif=exif)
    np.testing.assert_array_equal(read(path, image_size=upright.shape[:2]), upright)


def test_the_first_of_several_frames(save):
    frames = [Image.fromarray(stacked(np.full((6, 5), value, "uint8"))) for value in (10, 200)]
    path = save(frames[0], "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(path), 10)


def test_resizing_is_height_width_and_by_name(save):
    path = save(np.repeat(np.arange(0, 240, 10, dtype="uint8")[None], 12, axis=0))  # 12 × 24, a ramp along the width
    small = read(path, "grayscale", (3, 6))[..., 0]
    assert small.shape == (3, 6)
    np.testing.assert_array_equal(small, small[:1].repeat(3, axis=0))
    boxes = read(path, "grayscale", (3, 6), interpolation="box")[0, :, 0]
    np.testing.assert_allclose(boxes, np.arange(0, 240, 10).reshape(6, 4).mean(axis=1), atol=0.51)
    nearest = read(path, "grayscale", (3, 6), interpolation="nearest")[0, :, 0]
    assert set(nearest) <= set(range(0, 240, 10))
    assert len({tuple(row) for row in (small[0], boxes, nearest)}) == 3


# Checking files


def test_files_that_cannot_be_decoded_are_listed_with_the_reason(save, tmp_path, monkeypatch, capsys):
    whole = save(GREY, "a.png")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-12])  # its pixels are all there
    (tmp_path / "text.png").write_text("no image")
    paths = [tmp_path / name for name in ("text.png", "a.png", "gone.png", "a.png", "cut.png")]
    for at_once in (1024, 2):
        monkeypatch.setattr(decoding, "_FILES_AT_ONCE", at_once)
        refused = check_files(ImageDecoder((4, 4)), paths)
        assert [position for position, _ in refused] == [0, 2, 4]
        kinds = [reason.split(":")[0] for _, reason in refused]
        assert kinds[:2] == ["UnidentifiedImageError", "FileNotFoundError"]
        assert kinds[2].endswith("Error")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(decoding, "SECONDS_WITHOUT_BAR", -1)
    check_files(ImageDecoder((4, 4)), paths)
    assert "5/5" in capsys.readouterr().out


def test_a_file_is_read_by_what_it_holds_and_no_program_is_run(tmp_path):
    """Pillow gives PostScript to Ghostscript, whatever the name of the file."""
    path = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(path, format="EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"
    reason = reason_against(ImageDecoder((4, 4)), path)
    assert reason.startswith("UnidentifiedImageError")
    with pytest.raises(OSError, match="cannot identify"):
        ImageDecoder((4, 4))(path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused(tmp_path, make):
    """Opening a pipe would wait for ever, and a device has no end."""
    make(tmp_path / "1.png")
    assert "must be a regular file" in reason_against(ImageDecoder((4, 4)), tmp_path / "1.png")
