"""The page on which a verifier is tried: what it reads, what it says, and that it is served on this machine alone.

gradio brings some thirty packages, so it is not in the extra `test` but in `partners`. With it, tests open the page in
headless Chromium.
"""

import base64
import re
import socket
import wave

import keras
import numpy as np
import pytest
from PIL import Image

import keras_siamese as ks
from keras_siamese import app
from keras_siamese.cli import main

SIDE = 6


def of_shape(shape, **options):
    """A verifier of samples of this `shape`, calibrated on noise around three centres."""
    layers = [keras.layers.Flatten()] if len(shape) > 1 else []
    encoder = keras.Sequential([keras.Input(shape, **options), *layers, keras.layers.UnitNormalization()])
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 4)
    x = rng.uniform(0, 1, (3, *shape))[labels] + 0.05 * rng.normal(size=(12, *shape))
    return ks.Verifier.calibrate(encoder, x.astype("float32"), labels), x.astype("float32"), labels


@pytest.fixture(scope="module")
def images():
    return of_shape((SIDE, SIDE, 1))


def written(folder, x, labels):
    """The images as files, in a folder for each identity."""
    paths = []
    for number, (image, label) in enumerate(zip(x, labels, strict=True)):
        path = folder / f"person {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(np.clip(255 * image[:, :, 0], 0, 255))).save(path)
        paths.append(path)
    return paths


def test_images_are_compared_as_in_training(images, tmp_path):
    verifier, x, labels = images
    paths = written(tmp_path, x, labels)
    reader = app.Reader(verifier, divide=255)
    assert reader.kind == "image"
    np.testing.assert_allclose(reader.read(paths[0])[0], np.clip(x[0], 0, 1), atol=1 / 255)
    same, other = app.decide(verifier, reader, paths[0], paths[1]), app.decide(verifier, reader, paths[0], paths[-1])
    assert same.startswith("## Same") and "above the threshold" in same
    assert other.startswith("## Different") and "below the threshold" in other
    score = verifier.score(reader.read(paths[0]), reader.read(paths[1]))[0]
    assert f"The score is {score:.4g}" in same


def test_the_rule_says_that_a_score_is_a_negative_distance(images):
    verifier, *_ = images
    said = app.rule(verifier)
    assert f"at least the threshold, {verifier.threshold:.4g}. The score is −distance: a pair is accepted if" in said
    head = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    assert "distance" not in app.rule(ks.Verifier(ks.SiameseWrapper(verifier.parts.encoder, head=head), 0.5))


def test_one_is_searched_in_a_folder(images, tmp_path):
    verifier, x, labels = images
    paths = written(tmp_path, x, labels)
    gallery = app.enrolled(verifier, tmp_path, 255)
    reader = app.Reader(verifier, divide=255)
    rows, verdict = app.search(verifier, reader, gallery, paths[5])
    assert (rows[0][0], rows[0][-1], len(rows)) == ("person 1", "same", app.NEAREST)
    itself = reader.read(paths[5])
    assert rows[0][2] == f"{100 * verifier.probability(itself, itself)[0]:.1f} %"
    assert verdict == "## Nearest: person 1"
    Image.fromarray(np.uint8(255 * np.eye(SIDE))).save(tmp_path / "nobody.png")
    rows, verdict = app.search(verifier, app.Reader(verifier, divide=255), gallery, tmp_path / "nobody.png")
    assert verdict == "## Nobody in the gallery reaches the threshold" and rows[0][-1] == "different"


@pytest.mark.parametrize("end", [".wav", ".npy"])
def test_one_is_searched_in_a_folder_of_other_files(tmp_path, end):
    verifier, x, labels = of_shape((500,) if end == ".wav" else (5,))
    for number, (sample, label) in enumerate(zip(x, labels, strict=True)):
        path = tmp_path / f"person {label}" / f"{number}{end}"
        path.parent.mkdir(exist_ok=True)
        if end == ".npy":
            np.save(path, sample)
            continue
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
            file.writeframes((np.clip(sample, -1, 1) * 32767).astype("<i2").tobytes())
    gallery = app.enrolled(verifier, tmp_path)
    rows, verdict = app.search(verifier, app.Reader(verifier), gallery, tmp_path / "person 1" / f"5{end}")
    assert (
        len(gallery) == 12 and (rows[0][0], rows[0][-1]) == ("person 1", "same") and verdict == "## Nearest: person 1"
    )
    (tmp_path / "person 2" / f"z{end}").write_bytes(b"no sample")
    with pytest.raises(ValueError, match=f"`gallery` has .*z{end}', which cannot be read"):
        app.enrolled(verifier, tmp_path)
    with pytest.raises(ValueError, match=f"a folder of {end} files for each identity; .*person 0' has none"):
        app.enrolled(verifier, tmp_path / "person 0")


def test_one_is_searched_in_a_stored_gallery(images, tmp_path, monkeypatch):
    """The folder is known by the table in it, whatever its name; a gallery of another encoder is refused."""
    pytest.importorskip("lancedb", reason="the extra `gallery`")
    verifier, x, labels = images
    folder, names = tmp_path / "people", [f"person {label}" for label in labels]
    (probe, *_) = written(tmp_path / "files", x[5:6], labels[5:6])
    ks.StoredGallery(folder, verifier, "first").enroll(x, names)
    verifier.save(tmp_path / "verifier.keras")
    served = {}
    monkeypatch.setattr("keras_siamese.cli.check_installed", lambda *names: None)
    monkeypatch.setattr(app, "serve", lambda verifier, gallery, **options: served.update(gallery=gallery))
    assert main(["app", str(tmp_path / "verifier.keras"), "--gallery", str(folder)]) == 0
    gallery = served["gallery"]
    assert isinstance(gallery, ks.StoredGallery) and len(gallery) == 12
    rows, verdict = app.search(verifier, app.Reader(verifier, divide=255), gallery, probe)
    assert (rows[0][0], rows[0][-1], len(rows)) == ("person 1", "same", app.NEAREST)
    assert verdict == "## Nearest: person 1"

    ks.StoredGallery(folder, verifier, "second").enroll(x[:2], names[:2])
    with pytest.raises(ValueError, match='or one of the name "gallery"; got first, second. Pass `StoredGallery'):
        app.enrolled(verifier, folder)
    ks.StoredGallery(folder, verifier, "gallery").enroll(x[:3], names[:3])
    assert len(app.enrolled(verifier, folder)) == 3
    dense = keras.Sequential([keras.Input((SIDE, SIDE, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="was made with another encoder, or with other weights"):
        app.enrolled(ks.Verifier(ks.SiameseWrapper(dense), -1.0), folder)


@pytest.mark.parametrize("name", ["person.lance", "gallery"])
def test_a_folder_of_images_is_no_stored_gallery_for_its_name(images, tmp_path, name):
    verifier, x, labels = images
    written(tmp_path, x, labels)
    (tmp_path / "person 0").rename(tmp_path / name)
    gallery = app.enrolled(verifier, tmp_path, 255)
    assert not isinstance(gallery, ks.StoredGallery) and name in gallery.labels and len(gallery) == 12


@pytest.mark.tensorflow
def test_one_is_searched_in_a_folder_of_texts(tmp_path):
    words = keras.layers.TextVectorization(output_mode="count", vocabulary=["ada", "bo", "cy"])
    unit = [keras.layers.Rescaling(1.0), keras.layers.UnitNormalization()]  # the first makes floats of the counts
    encoder = keras.Sequential([keras.Input((), dtype="string"), words, *unit])
    texts, names = np.array(["ada", "ada ada", "bo", "bo bo"], dtype=object), ["a", "a", "b", "b"]
    verifier = ks.Verifier.calibrate(encoder, texts, names)
    for number, (text, name) in enumerate(zip(texts, names, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{number}.txt").write_text(text, encoding="utf-8")
    rows, verdict = app.search(verifier, app.Reader(verifier), app.enrolled(verifier, tmp_path), "bo bo bo")
    assert rows[0][0] == "b" and verdict == "## Nearest: b"


@pytest.mark.parametrize("width", [1, 2, 4])
def test_sounds_are_read(tmp_path, width):
    verifier, *_ = of_shape((500,))
    signal = np.sin(np.linspace(0, 20, 300))
    stereo = np.stack([signal, -0.5 * signal], axis=1)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2), file.setsampwidth(width), file.setframerate(8000)
        scaled = np.round(stereo * (2 ** (8 * width - 1) - 1))
        file.writeframes(((scaled + 128).astype("u1") if width == 1 else scaled.astype(f"<i{width}")).tobytes())
    reader = app.Reader(verifier)
    found = reader.read(tmp_path / "a.wav")
    assert reader.kind == "sound" and found.shape == (1, 500) and (found[0, 300:] == 0).all()
    np.testing.assert_allclose(found[0, :300], stereo.mean(axis=1), atol=2.0 ** (2 - 8 * width))


def test_other_sounds_are_refused_in_words(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(3), file.setframerate(8000)
        file.writeframes(bytes(30))
    verifier, *_ = of_shape((500,))
    said = app.decide(verifier, app.Reader(verifier), tmp_path / "a.wav", tmp_path / "a.wav")
    assert said.startswith("**Not compared.** The sound must have 8, 16 or 32 bits")
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(20))
    assert app.Reader(verifier, rate=8000).read(tmp_path / "b.wav").shape == (1, 500)
    with pytest.raises(ValueError, match="must have 16000 samples a second; it has 8000. Resample it"):
        app.Reader(verifier, rate=16000).read(tmp_path / "b.wav")
    for content in (b"", b"no sound at all"):
        (tmp_path / "b.wav").write_bytes(content)
        said = app.decide(verifier, app.Reader(verifier), tmp_path / "b.wav", tmp_path / "b.wav")
        assert said.startswith("**Not compared.** The sound must be a WAV file of whole numbers (PCM): ")


@pytest.mark.parametrize(("kind", "shape"), [("image", (4, 4, 2)), ("image", (None, 4, 3)), ("sound", (500, 2))])
def test_shapes_that_are_no_image_or_sound_are_refused(kind, shape):
    pooling = keras.layers.GlobalAveragePooling2D if kind == "image" else keras.layers.GlobalAveragePooling1D
    encoder = keras.Sequential([keras.Input(shape), pooling()])
    with pytest.raises(ValueError, match=f'`kind` "{kind}" does not fit the encoder'):
        app.Reader(ks.Verifier(ks.SiameseWrapper(encoder), -1.0), kind)


def test_arrays_are_read_and_mistakes_are_said(tmp_path):
    verifier, x, _ = of_shape((7,))
    for name, array in (("a", x[0]), ("b", x[1]), ("wide", np.zeros(8))):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "text.npy").write_text("no array")
    reader = app.Reader(verifier)
    assert reader.kind == "array"
    assert app.decide(verifier, reader, tmp_path / "a.npy", tmp_path / "b.npy").startswith("## Same")
    for wrong, why in (
        ("wide", r"must have the shape \(7,\)"),
        ("text", "must be a .npy array"),
        (None, "A sample is missing"),
    ):
        given = None if wrong is None else tmp_path / f"{wrong}.npy"
        assert re.search(rf"^\*\*Not compared.\*\* .*{why}", app.decide(verifier, reader, tmp_path / "a.npy", given))
    np.save(tmp_path / "large.npy", np.zeros(app.MEGABYTES * 2**18))
    assert "at most 10 MB" in app.decide(verifier, reader, tmp_path / "a.npy", tmp_path / "large.npy")


def test_what_does_not_fit_is_named(images):
    with pytest.raises(ValueError, match='`kind` "text" does not fit the encoder, which takes float32'):
        app.Reader(images[0], "text")
    with pytest.raises(ValueError, match="`kind` must be"):
        app.Reader(images[0], "video")
    with pytest.raises(ValueError, match="`divide` must be"):
        app.Reader(images[0], divide=0)
    with pytest.raises(ValueError, match="`rate` must be"):
        app.Reader(images[0], rate=0)
    two = keras.Model(inputs := [keras.Input((2,)), keras.Input((2,))], keras.layers.Concatenate()(inputs))
    verifier = ks.Verifier(ks.SiameseWrapper(two), -1.0)
    with pytest.raises(ValueError, match="verifiers of one input; this one has 2"):
        app.Reader(verifier)


def test_the_command_needs_a_verifier(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_siamese.cli.check_installed", lambda *names: None)
    assert main(["app", str(tmp_path / "missing.keras")]) == 2
    assert "`path` must be a saved Verifier" in capsys.readouterr().err


STEPS = """
const wait = (found, what) => new Promise((go, refuse) => {
  const end = Date.now() + 20000;
  const look = () => found() ? go(found()) : Date.now() > end ? refuse(new Error(what)) : setTimeout(look, 50);
  look();
});
const one = (choice) => wait(() => document.querySelector(choice), choice);
const give = async (id, data) => {
  const file = new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], "a.png", {type: "image/png"});
  const held = new DataTransfer(), input = await one(`${id} input[type=file]`);
  held.items.add(file);
  input.files = held.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
  await one(`${id} img[src*="/file="]`);
};
const ask = async (button, id) => {
  (await one(button)).click();
  const text = () => document.querySelector(id)?.innerText.trim();
  return await wait(() => /^[A-Z]/.test(text()) && text(), id); // before, it counts seconds
};
"""
SEARCH = """(await one("[role=tab]:not([aria-selected=true])")).click();
await give("#probe", "{0}");
return [await ask("#search", "#verdict"), document.querySelector("#nearest").innerText];"""


def steps(body, *files):
    """An expression that runs `body` in the page, in which `{0}`, `{1}` … stand for the bytes of the files."""
    for number, file in enumerate(files):
        body = body.replace(f"{{{number}}}", base64.b64encode(file.read_bytes()).decode())
    return f"(async () => {{ {STEPS} {body} }})()"


@pytest.fixture
def served(images, tmp_path):
    """The page of a verifier with a stored gallery, and the files of its images."""
    verifier, x, labels = images
    gallery = ks.StoredGallery(tmp_path / "people", verifier)
    gallery.enroll(x, [f"person {label}" for label in labels])
    blocks = app.serve(verifier, gallery, divide=255, block=False)
    yield blocks.local_url, written(tmp_path / "files", x, labels)
    blocks.close()


@pytest.mark.deep
@pytest.mark.partner("gradio")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gradio leaves sockets open
def test_samples_are_given_and_compared_in_the_browser(served, browser):
    address, files = served
    with socket.socket() as outside:
        port = int(address.rstrip("/").rpartition(":")[2])
        for other in {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}:
            assert other.startswith("127.") or outside.connect_ex((other, port)) != 0, "only this machine is served"
    page = browser.open(address, 1280, steps('return await ask("#compare", "#answer");'))
    assert page.result == "Not compared. A sample is missing: give it first"
    compare = 'await give("#first", "{0}"); await give("#second", "{1}"); return await ask("#compare", "#answer");'
    for other, answer, side in ((1, "Same", "above"), (-1, "Different", "below")):
        page = browser.open(address, 390, steps(compare, files[0], files[other]))
        assert page.result.startswith(f"{answer}\n") and f", {side} the threshold" in page.result
        assert page.errors == [] and page.scroll_width <= page.client_width
        assert [one for one in page.requests if not one.startswith((address, "data:", "blob:"))] == []
    verdict, table = browser.open(address, 1280, steps(SEARCH, files[5])).result
    assert verdict == "Nearest: person 1"
    assert table.split()[:4] == list(app.COLUMNS) and "person 1" in table and "same" in table and "%" in table
