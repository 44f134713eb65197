"""A page in the browser on which a verifier is tried by hand: `keras-siamese app verifier.keras`.

Contract: a `Verifier` in, a gradio `Blocks` out. `serve` shows it on this machine alone: it listens on 127.0.0.1,
limits the size of uploads, shares nothing and loads nothing from the network. Needs the extra `app` (gradio).

    serve(Verifier.load("verifier.keras"), gallery=ImageFolder("people", (64, 64)))
"""

import os
import wave
from pathlib import Path

import numpy as np
from keras import ops

from keras_siamese._checks import check_choice, check_installed, check_integer, check_number
from keras_siamese._reading import check_array
from keras_siamese.data import ImageFiles, ImageFolder
from keras_siamese.scoring import negated, to_numpy
from keras_siamese.stored import StoredGallery
from keras_siamese.verification.evidence import of_negatives

KINDS = ("image", "sound", "text", "array")
COLOURS = {1: "grayscale", 3: "rgb", 4: "rgba"}
FILES = {"sound": ".wav", "text": ".txt", "array": ".npy"}  # of a gallery
MEGABYTES = 10  # of an upload
NEAREST = 5  # enrolled samples that are shown
COLUMNS = ("enrolled", "score", "probability", "decision")
HEIGHT = 260  # CSS pixels of a shown image, whatever its size
SOUND = 400  # numbers from which on a vector is taken for sound


class Reader:
    """Turns what a person gives into a sample of the verifier.

    Args:
        verifier: the `Verifier`.
        kind: "image", "sound", "text" or "array"; by default what the shape of the encoder's input tells.
        divide: by what images are divided, which are read as numbers from 0 to 255; as in training.
        rate: samples of sounds in a second, as in training: other sounds are refused. By default this is not checked.

    Raises:
        ValueError: if the encoder has several inputs, or if its input is not of the `kind`.
    """

    def __init__(self, verifier, kind=None, divide=1.0, rate=None):
        inputs = getattr(verifier.parts.encoder, "inputs", None) or []
        if len(inputs) != 1:
            raise ValueError(f"The page shows verifiers of one input; this one has {len(inputs) or 'unknown'} inputs")
        self.shape, self.dtype = tuple(inputs[0].shape[1:]), str(inputs[0].dtype)
        self.kind = kind_of(self.shape, self.dtype) if kind is None else check_choice("kind", kind, KINDS)
        self.divide = check_number("divide", divide, low=0, open_low=True)
        self.rate = None if rate is None else check_integer("rate", rate, low=1)
        is_image = len(self.shape) == 3 and self.shape[2] in COLOURS and None not in self.shape
        wrong = {"image": not is_image, "sound": self.shape[1:] not in ((), (1,)), "text": self.dtype != "string"}
        if wrong.get(self.kind, False):
            raise ValueError(f'`kind` "{self.kind}" does not fit the encoder, which takes {self.dtype} {self.shape}')

    def read(self, given):
        """A sample `(1, …)` of the text, or of the file at the path, that a person gave."""
        if given is None or (isinstance(given, str) and not given.strip()):
            raise ValueError("A sample is missing: give it first")
        if self.kind == "text":
            return np.array([given], dtype=object)
        if Path(given).stat().st_size > MEGABYTES * 2**20:
            raise ValueError(f"The file must have at most {MEGABYTES} MB")
        return getattr(self, f"read_{self.kind}")(given)

    def read_image(self, path):
        height, width, channels = self.shape
        files = ImageFiles([path], (height, width), COLOURS[channels])
        return files[[0]] / np.float32(self.divide)

    def read_sound(self, path):
        """A WAV file of 8, 16 or 32 bits, its channels averaged, in [−1, 1]; cut or filled with silence."""
        try:
            with wave.open(str(path)) as file:
                width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
                found = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            why = str(error) or "it ends too early"
            raise ValueError(f"The sound must be a WAV file of whole numbers (PCM): {why}") from error
        if self.rate not in (None, rate):
            raise ValueError(f"The sound must have {self.rate} samples a second; it has {rate}. Resample it")
        if width == 3:
            raise ValueError("The sound must have 8, 16 or 32 bits; it has 24. Convert it to 16 bits")
        dtype, offset = {1: ("u1", 128), 2: ("<i2", 0), 4: ("<i4", 0)}[width]
        signal = (np.frombuffer(found, dtype).astype("float32") - offset) / 2 ** (8 * width - 1)
        signal = signal.reshape(-1, channels).mean(axis=1)
        length = self.shape[0] or len(signal)
        return np.pad(signal[:length], (0, max(0, length - len(signal)))).reshape(1, length, *self.shape[1:])

    def read_array(self, path):
        """A `.npy` file with one sample."""
        with open(path, "rb") as file:
            check_array("The file must be a .npy array; it", file, os.path.getsize(path))
        sample = np.load(path, allow_pickle=False)
        if len(sample.shape) != len(self.shape) or any(
            wanted not in (None, size) for size, wanted in zip(sample.shape, self.shape, strict=True)
        ):
            raise ValueError(f"The array must have the shape {self.shape} of one sample; it has {sample.shape}")
        return sample[None]


def kind_of(shape, dtype):
    """What samples of an encoder's input are, by its shape without the batch."""
    if dtype == "string":
        return "text"
    if len(shape) == 3 and shape[2] in COLOURS and None not in shape:
        return "image"
    if shape[1:] in ((), (1,)) and (shape[0] is None or shape[0] >= SOUND):
        return "sound"
    return "array"


def enrolled(verifier, folder, divide=1.0, kind=None, rate=None):
    """The gallery in `folder`: a `StoredGallery`, or a `Gallery` of the samples in one folder for each identity.

    The samples are images, or files as in `FILES`. A folder with a table of LanceDB is that of a `StoredGallery`.

    Raises:
        ValueError: if there are no samples, if one cannot be read, which is named, or if they have several lengths; if
            a stored gallery was made with another encoder, or if there are several and none has the name "gallery".
    """
    reader = Reader(verifier, kind, divide, rate)
    if names := stored_in(folder):
        if len(names) > 1 and "gallery" not in names:
            why = f'`gallery` must have one stored gallery, or one of the name "gallery"; got {", ".join(names)}'
            raise ValueError(f"{why}. Pass `StoredGallery({str(folder)!r}, verifier, name)` to `serve`")
        return StoredGallery(folder, verifier, "gallery" if "gallery" in names else names[0])
    if reader.kind == "image":
        height, width, channels = reader.shape
        images = ImageFolder(folder, (height, width), COLOURS[channels])
        return verifier.enroll(images[:] / np.float32(divide), images.labels)
    end, samples = FILES[reader.kind], []
    files = sorted(Path(folder).glob(f"*/*{end}"))
    if not files:
        raise ValueError(f"`gallery` must have a folder of {end} files for each identity; {str(folder)!r} has none")
    for file in files:
        try:
            samples.append(reader.read(file.read_text(encoding="utf-8") if reader.kind == "text" else file))
        except (ValueError, OSError) as error:
            raise ValueError(f"`gallery` has {str(file)!r}, which cannot be read: {error}") from error
    if len(shapes := {sample.shape[1:] for sample in samples}) > 1:
        raise ValueError(f"`gallery` must have samples of one shape; got {', '.join(map(str, sorted(shapes)))}")
    return verifier.enroll(np.concatenate(samples), [file.parent.name for file in files])


def stored_in(folder):
    """The names of LanceDB's tables in a folder: each is a folder NAME.lance that keeps its versions."""
    return sorted(path.parent.stem for path in Path(folder).glob("*.lance/_versions") if path.is_dir())


def decide(verifier, reader, left, right):
    """What the page says of two samples, in Markdown; what cannot be read is said, too."""
    try:
        found = verifier.decide(reader.read(left), reader.read(right))
    except (ValueError, OSError, KeyError) as error:
        return f"**Not compared.** {error}"
    score, probability, accept = (found[name][0] for name in ("score", "probability", "accept"))
    answer = "Same" if accept else "Different"
    side = "above" if accept else "below"
    return (
        f"## {answer}\n\nThe score is {score:.4g}, {side} the threshold {verifier.threshold:.4g}. "
        f"If half of all pairs are genuine, the probability of the same identity is {100 * probability:.1f} %."
    )


def search(verifier, reader, gallery, probe):
    """Rows of the nearest enrolled samples, as in `COLUMNS`, and the answer, or what cannot be read, in Markdown."""
    try:
        found = verifier.identify(reader.read(probe), gallery, k=min(NEAREST, len(gallery)))
    except (ValueError, OSError, KeyError) as error:
        return [], f"**Not searched.** {error}"
    labels = found.rows[0] if found.labels is None else found.labels[0]
    probabilities = to_numpy(verifier._decided(ops.convert_to_tensor(found.scores[0]))["probability"])
    rows = [
        [str(label), f"{score:.4g}", f"{100 * probability:.1f} %", "same" if accepted else "different"]
        for label, score, probability, accepted in zip(
            labels, found.scores[0], probabilities, found.accepted[0], strict=True
        )
    ]
    verdict = f"Nearest: {rows[0][0]}" if found.accepted[0, 0] else "Nobody in the gallery reaches the threshold"
    return rows, f"## {verdict}"


def rule(verifier):
    """How the verifier decides, in one or two sentences."""
    negative, threshold = negated(verifier.parts), f"{verifier.threshold:.4g}"
    decides = f"Two samples count as the same identity if their score is at least the threshold, {threshold}."
    return decides if negative is None else f"{decides} {of_negatives(verifier.threshold, negative)}"


def page(verifier, gallery=None, kind=None, divide=1.0, rate=None):
    """The gradio `Blocks` of a verifier; arguments are those of `serve`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gr = check_installed("gradio", "app")
    reader = Reader(verifier, kind, divide, rate)
    component, options = {
        "image": (gr.Image, {"type": "filepath", "sources": ["upload", "clipboard"], "height": HEIGHT}),
        "sound": (gr.Audio, {"type": "filepath", "sources": ["upload"], "format": "wav"}),
        "text": (gr.Textbox, {"lines": 3}),
        "array": (gr.File, {"type": "filepath", "file_types": [".npy"]}),
    }[reader.kind]
    with gr.Blocks(title="Verifier", analytics_enabled=False) as blocks:
        gr.Markdown(f"# Verifier of {verifier.siamese.name}\n\n{rule(verifier)}")
        with gr.Tab("Two samples"):
            with gr.Row():
                sides = [component(label=name, elem_id=name.lower(), **options) for name in ("First", "Second")]
            compare = gr.Button("Compare", variant="primary", elem_id="compare")
            answer = gr.Markdown(elem_id="answer")
            compare.click(lambda left, right: decide(verifier, reader, left, right), sides, answer)
        if gallery is not None:
            with gr.Tab("One against the gallery"):
                gr.Markdown(f"The {min(NEAREST, len(gallery))} nearest of {len(gallery):,} enrolled samples are shown.")
                probe = component(label="Probe", elem_id="probe", **options)
                start = gr.Button("Search", variant="primary", elem_id="search")
                verdict = gr.Markdown(elem_id="verdict")
                table = gr.Dataframe(headers=list(COLUMNS), interactive=False, elem_id="nearest")
                start.click(lambda given: search(verifier, reader, gallery, given), probe, [table, verdict])
    return blocks


def serve(verifier, gallery=None, *, kind=None, divide=1.0, rate=None, port=None, open_browser=False, block=True):
    """Shows the page on this machine, at 127.0.0.1, until it is interrupted.

    Args:
        verifier: the `Verifier`.
        gallery: enrolled samples: `(x, labels)`, a `Gallery`, or a `StoredGallery`.
        kind: "image", "sound", "text" or "array"; by default what the encoder's input tells.
        divide: by what images, numbers from 0 to 255, are divided, as in training.
        rate: samples of sounds in a second, as in training; by default sounds of any rate are taken.
        port: the port; by default the first that is free from 7860 on.
        open_browser: whether to open the page in a browser.
        block: whether to wait until the server is interrupted.

    Returns:
        The gradio `Blocks`, whose `local_url` is the address.
    """
    if isinstance(gallery, (tuple, list)):
        gallery = verifier.enroll(*gallery)
    blocks = page(verifier, gallery, kind, divide, rate)
    gr = check_installed("gradio", "app")
    local = {"server_name": "127.0.0.1", "server_port": port, "share": False, "max_file_size": f"{MEGABYTES}mb"}
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    blocks.launch(**local, theme=theme, inbrowser=open_browser, prevent_thread_lock=not block, quiet=not block)
    return blocks
