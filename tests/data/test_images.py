"""Image files as samples: which files are found and refused, and training from a folder equals training from arrays."""

import copy
import logging
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from keras_siamese.data import (
    ImageFiles,
    ImageFolder,
    PairSequence,
    from_dataframe,
    images,
    pixels,
    split_identities,
)

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (6, 5), dtype="uint8")


@pytest.fixture
def save(tmp_path):
    def save(image, name="x.png", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(path, **options)
        return path

    return save


@pytest.fixture
def tree(tmp_path, save):
    """2 images of ada, 1 of bo, 1 of dee/eve in a nested folder; the grey of an image is its place in sorted order."""
    for number, name in enumerate(["ada/1.png", "ada/10.png", "bo/1.PNG", "dee/eve/a.png"]):
        save(np.full((4, 4), number, "uint8"), name)
    return tmp_path


def test_rows_come_in_any_order_and_are_decoded_once(tree, monkeypatch):
    folder = ImageFolder(tree, (4, 4), "grayscale")
    read_paths = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda path, options: read_paths.append(path) or decode(path, options))
    batch = folder[np.array([3, 0, 3, 2, 0])]
    assert batch.shape == (5, 4, 4, 1)
    assert batch[:, 0, 0, 0].tolist() == [3, 0, 3, 2, 0]
    assert read_paths == [folder.paths[row] for row in (3, 0, 2)]
    assert folder[-1].shape == (4, 4, 1)
    assert folder[1:3][:, 0, 0, 0].tolist() == [1, 2]
    assert folder[[]].shape == (0, 4, 4, 1)


# Folders


def test_identities_are_folders_in_sorted_order(tree):
    folder = ImageFolder(str(tree), (4, 4))
    assert folder.labels.tolist() == ["ada", "ada", "bo", "dee/eve"]
    assert [Path(path).relative_to(tree).as_posix() for path in folder.paths] == [
        "ada/1.png",
        "ada/10.png",
        "bo/1.PNG",
        "dee/eve/a.png",
    ]
    assert folder[:][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert (len(folder), folder.shape, folder.dtype, folder.skipped) == (4, (4, 4, 4, 3), np.float32, ())
    assert repr(folder) == "ImageFolder(4 images of 3 identities, of 4 × 4, rgb)"


def test_order_does_not_depend_on_the_file_system(tree, monkeypatch):
    expected = ImageFolder(tree, (4, 4)).paths
    scan = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.entries = scan(folder)

        def __enter__(self):
            return sorted(self.entries, key=lambda entry: entry.name, reverse=True)

        def __exit__(self, *details):
            self.entries.close()

    monkeypatch.setattr(images.os, "scandir", Reversed)
    assert ImageFolder(tree, (4, 4)).paths == expected


def test_what_systems_leave_behind_is_passed_over(tree):
    for name in (".DS_Store", "ada/Thumbs.db", "ada/._1.png", "bo/desktop.ini", ".git/x.png", "empty/.keep"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"no image")
    assert len(ImageFolder(tree, (4, 4))) == 4


def test_bad_files_are_reported_together_and_skipped_on_request(tree, save, caplog):
    whole = save(RNG.integers(0, 256, (50, 50, 3), dtype="uint8"), "ada/cut.jpg").read_bytes()
    (tree / "ada/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "bo/cut.png").write_bytes((tree / "ada/1.png").read_bytes()[:-12])  # its pixels are all there
    (tree / "bo/text.png").write_text("no image")
    (tree / "bo/empty.gif").write_bytes(b"")
    (tree / "bo/notes.txt").write_text("no image either")
    save(GREY, "stray.png")
    (tree / "ada/nowhere.png").symlink_to(tree / "gone.png")
    bad = ["stray.png", "ada/cut.jpg", "ada/nowhere.png", "bo/cut.png", "bo/text.png", "bo/empty.gif", "bo/notes.txt"]

    with pytest.raises(ValueError, match="7 of 11 files are not:") as caught:
        ImageFolder(tree, (4, 4))
    for name in bad:
        assert f"\n  {tree / name}: " in str(caught.value)
    for reason in ("not in the folder of an identity", "not an image: its name", "UnidentifiedImageError", "truncated"):
        assert reason in str(caught.value)
    assert 'on_error="skip"' in str(caught.value)

    with caplog.at_level(logging.WARNING):
        folder = ImageFolder(tree, (4, 4), on_error="skip")
    assert "7 of 11 files are left out" in caplog.text
    assert {path for path, _ in folder.skipped} == {str(tree / name) for name in bad}
    assert folder.labels.tolist() == ["ada", "ada", "bo", "dee/eve"]
    assert folder[:][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert repr(folder) == "ImageFolder(4 images of 3 identities, of 4 × 4, rgb; 7 files skipped)"


def test_a_long_list_of_bad_files_is_cut(tree):
    for number in range(30):
        (tree / f"ada/bad{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="30 of 34 files") as caught:
        ImageFolder(tree, (4, 4))
    assert str(caught.value).count("UnidentifiedImageError") == 10
    assert "\n  and 20 more\n" in str(caught.value)


def test_unchecked_files_fail_when_they_are_read_with_their_path(tree):
    (tree / "bo/text.png").write_text("no image")
    folder = ImageFolder(tree, (4, 4), check=False)
    assert len(folder) == 5
    assert folder[[0, 4]].shape == (2, 4, 4, 3)
    with pytest.raises(OSError, match=r"The image '.*bo/text\.png' cannot be read: UnidentifiedImageError"):
        folder[[1, 3]]


def test_links_that_leave_the_root_are_refused(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    Image.fromarray(GREY).save(outside / "secret.png")
    (tree / "ada/link.png").symlink_to(outside / "secret.png")
    (tree / "ada/relative.png").symlink_to(Path("../..") / outside.name / "secret.png")
    (tree / "cy").symlink_to(outside)
    (tree / "bo/second.png").symlink_to(tree / "bo/1.PNG")
    (tree / "bo/again").symlink_to(tree)
    (tree / "twin").symlink_to(tree / "dee")
    (tree / "sibling").symlink_to(str(tree) + "-other")
    Path(str(tree) + "-other").mkdir()
    with pytest.raises(ValueError, match="5 of 11 files") as caught:
        ImageFolder(tree, (4, 4))
    for name in ("ada/link.png", "ada/relative.png", "cy", "sibling"):
        assert f"{tree / name}: a link that leads out of the folder" in str(caught.value)
    assert f"{tree / 'bo/again'}: a link to a folder that contains it" in str(caught.value)
    folder = ImageFolder(tree, (4, 4), on_error="skip")
    assert folder.labels.tolist() == ["ada", "ada", "bo", "bo", "dee/eve", "twin/eve"]


def test_links_in_linked_folders_are_refused(tree):
    """Otherwise forty folders, each with two links to the next, would have 2⁴⁰ paths."""
    for number in range(40):
        (tree / f"all/{number}").mkdir(parents=True)
        for name in ("a", "b"):
            (tree / f"all/{number}/{name}").symlink_to(tree / f"all/{number + 1}")
    (tree / "all/40").mkdir()
    (tree / "all/40/1.png").symlink_to(tree / "ada/1.png")
    with pytest.raises(ValueError, match="a link to a folder inside of another linked folder"):
        ImageFolder(tree, (4, 4))
    folder = ImageFolder(tree, (4, 4), on_error="skip")
    assert [label for label in folder.labels if label.startswith("all")] == ["all/39/a", "all/39/b", "all/40"]


def test_a_root_that_is_a_link_is_followed(tree, tmp_path_factory):
    link = tmp_path_factory.mktemp("link") / "root"
    link.symlink_to(tree)
    assert ImageFolder(link, (4, 4)).labels.tolist() == ["ada", "ada", "bo", "dee/eve"]


@pytest.mark.parametrize("side", [12, 30])  # above Pillow's limit, where it warns, and above twice the limit
def test_decompression_bombs_are_refused(tree, save, monkeypatch, side):
    save(np.zeros((side, side), "uint8"), "ada/bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(ValueError, match=r"1 of 5 files are not:\n.*bomb\.png: .*(bomb|Bomb)"):
                ImageFolder(tree, (4, 4))
    with warnings.catch_warnings(), pytest.raises(OSError, match="bomb"):
        warnings.simplefilter("ignore")
        ImageFolder(tree, (4, 4), check=False)[:]


def test_extensions(tree):
    os.rename(tree / "dee/eve/a.png", tree / "dee/eve/a.image")
    with pytest.raises(ValueError, match=r"a\.image: not an image: its name ends in none of \.png \.jpg"):
        ImageFolder(tree, (4, 4))
    assert len(ImageFolder(tree, (4, 4), extensions=[".png", ".IMAGE"])) == 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "a folder of images for each identity, as .*ada.1.png; no files below"),
        (["1.png", "2.png"], "all 2 files are in no subfolder"),
    ],
)
def test_roots_without_identities_are_refused(save, tmp_path, names, message):
    for name in names:
        save(GREY, name)
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, (4, 4))


def test_refuses_bad_arguments(tree):
    cases = [
        ({"path": tree / "none"}, ValueError, "`path` must be a folder; .*none' does not exist"),
        ({"path": tree / "ada/1.png"}, ValueError, r"`path` must be a folder; .*1\.png' is a file"),
        ({"path": 3}, TypeError, "`path` must be a path; got 3 of type int"),
        ({"image_size": 4}, ValueError, r"`image_size` must be \(height, width\); got 4"),
        ({"image_size": (4, 0)}, ValueError, r"`image_size\[1\]` must be at least 1; got 0"),
        ({"color_mode": "hsv"}, ValueError, "`color_mode` must be one of 'rgb', 'grayscale', 'rgba'; got 'hsv'"),
        ({"interpolation": "cubic"}, ValueError, "`interpolation` must be one of 'nearest', "),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be one of 'raise', 'skip'; got 'ignore'"),
        ({"extensions": ".png"}, ValueError, "`extensions` must be strings such as .*; got '.png'"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message):
            ImageFolder(**({"path": tree, "image_size": (4, 4)} | change))
    with pytest.raises(ValueError, match="`paths` must hold at least one image; got 0 files"):
        ImageFiles([], (4, 4))
    with pytest.raises(ValueError, match="must hold at least one image; got 1 files, 1 skipped"):
        ImageFiles([tree / "none.png"], (4, 4), on_error="skip")


def test_without_pillow_the_extra_is_named(tree, monkeypatch):
    def missing(module):
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr("keras_siamese._checks.importlib.import_module", missing)
    with pytest.raises(ImportError, match=r'pip install "keras-siamese\[images\]"'):
        ImageFolder(tree, (4, 4))


# Lists of files and tables


def test_files_keep_their_order_and_positions(tree):
    paths = [tree / name for name in ("bo/1.PNG", "gone.png", "ada/10.png")]
    with pytest.raises(ValueError, match=r"1 of 3 files are not:\n.*gone\.png: FileNotFoundError"):
        ImageFiles(paths, (4, 4))
    files = ImageFiles(paths, (4, 4), on_error="skip")
    assert files.kept.tolist() == [0, 2]
    assert files[:][:, 0, 0, 0].tolist() == [2, 1]


def test_a_root_bounds_its_files(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.png"
    Image.fromarray(GREY).save(outside)
    root = tree / "ada"
    (root / "link.png").symlink_to(outside)
    assert len(ImageFiles(["1.png", root / "10.png", "../ada/1.png"], (4, 4), root=root)) == 3
    for path in ("../bo/1.PNG", outside, "link.png"):
        with pytest.raises(ValueError, match="1 of 2 files are not:\n.*: outside `root`"):
            ImageFiles(["1.png", path], (4, 4), root=root)
    assert len(ImageFiles([outside], (4, 4))) == 1


def test_dataframes(tree):
    pandas = pytest.importorskip("pandas")
    columns = {"file": ["bo/1.PNG", "ada/1.png", "gone.png", "ada/10.png"], "who": ["bo", "ada", "bo", "ada"]}
    for frame in (pandas.DataFrame(columns, index=[7, 7, 1, 0]), columns):
        files, labels = from_dataframe(
            frame, "file", "who", tree, image_size=(4, 4), color_mode="grayscale", on_error="skip"
        )
        assert labels.tolist() == ["bo", "ada", "ada"]
        assert files[:][:, 0, 0, 0].tolist() == [2, 0, 1]
        assert PairSequence(files, labels, batch_size=3)[0][0][0].shape == (3, 4, 4, 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"file": ["ada/1.png", None, "bo/1.PNG", float("nan")]},
            ValueError,
            "'file' holds .* in rows 1, 3, counted from 0",
        ),
        ({"file": ["ada/1.png", "", "ada/1.png", "bo/1.PNG"]}, ValueError, "holds '' or similar in rows 1, counted"),
        (
            {"who": [1, 2, None, 3]},
            ValueError,
            "`label_column` .* 'who' holds nan or similar in rows 2",
        ),
        (
            {"who": [1, 2, 3.5, 3]},
            ValueError,
            "`label_column` must hold whole numbers or .* in rows 2, counted",
        ),
        (
            {"path_column": "path"},
            ValueError,
            r"`path_column` must be a column .* 'path', and it has \['file', 'who'\]",
        ),
        ({"label_column": "id"}, ValueError, "`label_column` must be a column of `frame`; got 'id'"),
        ({"root": "/nowhere"}, ValueError, "`root` must be a folder; '/nowhere' does not exist"),
        ({"colour_mode": "rgb"}, TypeError, "colour_mode"),
    ],
)
def test_bad_tables_name_their_rows(tree, change, error, message):
    pandas = pytest.importorskip("pandas")
    columns = {"file": ["ada/1.png", "ada/10.png", "bo/1.PNG", "bo/1.PNG"], "who": ["ada", "ada", "bo", "bo"]}
    arguments = {"path_column": "file", "label_column": "who", "root": tree, "image_size": (4, 4)} | change
    frame = pandas.DataFrame({name: arguments.pop(name, column) for name, column in columns.items()})
    with pytest.raises(error, match=message):
        from_dataframe(frame, **arguments)


# Training


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """24 images of 6 identities, in files and as an array."""
    root = tmp_path_factory.mktemp("birds")
    pixels = np.random.default_rng(4).integers(0, 256, (24, 7, 8, 3), dtype="uint8")
    labels = np.repeat([f"bird{number}" for number in range(6)], 4)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / label / f"{number:02d}.png")
    return root, pixels.astype("float32"), labels


def assert_same_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip([*one[0], one[1]], [*other[0], other[1]], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def in_order(sequence):
    return [sequence[index] for index in range(len(sequence))]


def test_folders_and_arrays_give_the_same_batches_to_all_threads(birds):
    root, pixels, labels = birds
    folder = ImageFolder(root, (7, 8))
    sequence = PairSequence(folder, folder.labels, batch_size=5, seed=1)
    arrays = PairSequence(pixels, labels, batch_size=5, seed=1)
    for epoch in (0, 3):
        sequence.set_epoch(epoch)
        arrays.set_epoch(epoch)
        expected = in_order(arrays)
        assert_same_batches(in_order(sequence), expected)
        for workers in (2, 4):
            with ThreadPoolExecutor(workers) as pool:
                assert_same_batches(list(pool.map(sequence.__getitem__, range(5))), expected)
    for other in (pickle.loads(pickle.dumps(sequence)), copy.deepcopy(sequence)):
        assert_same_batches(in_order(other), expected)


@pytest.mark.deep
def test_folders_and_arrays_give_the_same_batches_to_processes(birds):
    root, pixels, labels = birds
    folder = ImageFolder(root, (7, 8))
    sequence = PairSequence(folder, folder.labels, batch_size=5, seed=1)
    expected = in_order(PairSequence(pixels, labels, batch_size=5, seed=1))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert_same_batches(list(pool.map(sequence.__getitem__, range(5), timeout=120)), expected)


def test_workers_of_a_sequence_ask_processes(birds, monkeypatch):
    """As threads of Keras, at most one for each core, also with use_multiprocessing=True.

    An `augment` goes to processes of Keras.
    """
    monkeypatch.setattr("keras_siamese.data.processes.cores", lambda: 2)
    folder = ImageFolder(birds[0], (7, 8))
    asked = []
    decode = pixels.decode_all
    monkeypatch.setattr(
        "keras_siamese.data.processes.decode_all", lambda *request: asked.append(request[2]) or decode(*request[:2])
    )
    part = split_identities(folder, folder.labels, (0.5, 0.5))[0]
    for x, labels in ((folder, folder.labels), ({"image": folder}, folder.labels), part):
        for workers, multi in ((1, False), (3, False), (3, True)):
            sequence = PairSequence(x, labels, batch_size=4, workers=workers, use_multiprocessing=multi)
            del asked[:]
            sequence[0]
            assert asked == [min(workers, 2)] * 2 and sequence.workers == min(workers, 2)
            assert not sequence.use_multiprocessing
    options = {"batch_size": 4, "use_multiprocessing": True}
    assert PairSequence(folder, folder.labels, workers=1, **options).use_multiprocessing
    augmented = PairSequence(folder, folder.labels, workers=3, augment=lambda batch, rng: batch, **options)
    assert augmented.use_multiprocessing and augmented.workers == 3
    mixed = PairSequence({"image": folder, "number": np.arange(24)}, folder.labels, workers=2, **options)
    assert mixed.use_multiprocessing
    mixed.use_multiprocessing = False
    assert not mixed.use_multiprocessing


@pytest.mark.each_backend
def test_fit_gets_the_same_batches_with_any_workers(birds, monkeypatch):
    import keras

    monkeypatch.setattr("keras_siamese.data.processes.cores", lambda: 2)
    folder = ImageFolder(birds[0], (7, 8), cache_bytes=2000)
    losses = []
    for options in ({"workers": 1}, {"workers": 3}, {"workers": 2, "use_multiprocessing": True}):
        inputs = [keras.Input((7, 8, 3)) for _ in range(2)]
        total = keras.layers.Add()([keras.layers.Flatten()(one) for one in inputs])
        model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(total))
        model.compile(keras.optimizers.SGD(0.0), "mean_absolute_error")
        sequence = PairSequence(folder, folder.labels, batch_size=5, seed=1, **options)
        losses.append(model.fit(sequence, epochs=1, verbose=0, shuffle=False).history["loss"][0])
    np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-6)


def test_folders_split_into_views(birds):
    root, pixels, labels = birds
    folder = ImageFolder(root, (7, 8))
    parts = split_identities(folder, folder.labels, (0.5, 0.5), seed=2)
    expected = split_identities(pixels, labels, (0.5, 0.5), seed=2)
    for (part, part_labels), (array, array_labels) in zip(parts, expected, strict=True):
        assert part.source is folder
        assert part_labels.tolist() == array_labels.tolist()
        np.testing.assert_array_equal(part[:], array)


@pytest.mark.deep
def test_a_folder_trains_and_validates(birds, tmp_path):
    import keras

    import keras_siamese as ks

    folder = ImageFolder(birds[0], (7, 8))
    train, valid = split_identities(folder, folder.labels, (0.5, 0.5))
    siamese = ks.SiameseWrapper(
        keras.Sequential(
            [
                keras.Input((7, 8, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
            ]
        )
    )
    siamese.compile("sgd", loss=ks.losses.ContrastiveLoss())
    monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence=lambda diagnosis: None)
    history = siamese.fit(PairSequence(*train, batch_size=4, workers=2), epochs=2, verbose=0, callbacks=[monitor])
    assert len(history.history["val_eer"]) == 2
    monitor.diagnose().to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Worst false accepts" in page and "data:image" in page


# Omniglot


@pytest.mark.deep
def test_omniglot_through_files_and_through_arrays(tmp_path):
    """The real data set in the layout of its archive: alphabet/character/number_drawer.png, 1-bit, 105 × 105."""
    data = os.environ.get("KERAS_SIAMESE_DATA")
    if not data or not Path(data, "omniglot.npz").exists():
        pytest.skip("KERAS_SIAMESE_DATA names no folder with omniglot.npz")
    with np.load(Path(data, "omniglot.npz"), allow_pickle=False) as file:
        rows = np.flatnonzero(np.isin(file["class_id"], np.arange(0, 1623, 40)) & (file["drawer"] <= 6))
        ink = np.unpackbits(file["images"][rows], axis=-1)[:, : 105 * 105].reshape(-1, 105, 105).astype(bool)
        alphabets, characters = file["alphabets"][file["alphabet"][rows]], file["class_id"][rows]
        drawers = file["drawer"][rows]
    labels = [f"{alphabet}/character{number:04d}" for alphabet, number in zip(alphabets, characters, strict=True)]
    for mask, label, number, drawer in zip(ink, labels, characters, drawers, strict=True):
        (tmp_path / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(~mask).save(tmp_path / label / f"{number:04d}_{drawer:02d}.png")  # ink is black there

    folder = ImageFolder(tmp_path, (105, 105), "grayscale")
    order = sorted(range(len(labels)), key=lambda row: (labels[row], drawers[row]))
    x = np.where(ink[order], 0, 255).astype("float32")[..., None]
    assert folder.labels.tolist() == [labels[row] for row in order]
    assert len(set(labels)) == 41
    parts = split_identities(folder, folder.labels, (0.7, 0.3)), split_identities(x, folder.labels, (0.7, 0.3))
    for (lazy, lazy_labels), (array, array_labels) in zip(*parts, strict=True):
        assert_same_batches(
            in_order(PairSequence(lazy, lazy_labels, batch_size=50)),
            in_order(PairSequence(array, array_labels, batch_size=50)),
        )
