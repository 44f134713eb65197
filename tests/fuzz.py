"""Fuzzing: give the readers of files damaged and hostile inputs, and see what comes out besides their own errors.

Each input begins as a valid file and is changed one to four times: bytes are flipped, cut out, repeated or exchanged
with those of another valid file, numbers become extreme, values of JSON are replaced or nested, and the members of zip
archives are changed in the same ways and packed again. A reader may return a value or raise the errors that it
documents, within a limit on time and memory. All else is a finding, whose input is kept.

    python tests/fuzz.py                                     # as many inputs of each reader as SECURITY.md states
    python tests/fuzz.py --readers scores samples --count 1000 --seed 7
    python tests/fuzz.py --keep tests/fuzzed                 # keep the inputs of findings, which test_fuzz.py reads

Input number `i` of a reader depends only on the seed, the reader and `i`. Linux only, on the PyTorch backend.
`PYTHONPATH` chooses another checkout of the package.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SECONDS, MEMORY = 10, 2**31  # for one input; memory is that beyond what the process has when it begins
COUNTS = {"verifier": 5_000, "model": 5_000, "report": 20_000, "folder": 20_000}
MANY = 100_000
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where inputs are written
NUMBERS = (b"-1", b"0", b"999999", b"1000000", b"99999999999999999999", b"1e400", b"-1e-400", b"NaN", b"1" * 5000)
VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    999_999,
    10**30,
    1e308,
    float("nan"),
    "",
    "x" * 1000,
    "../../etc/passwd",
    [],
    {},
    [[]],
)


class Reader(NamedTuple):
    """A reader of files.

    Attributes:
        seeds: `seeds(folder)` gives valid files as bytes; it may write into the folder.
        read: reads the file at a path.
        errors: what it may raise.
        suffix: the end of the file's name.
    """

    seeds: callable
    read: callable
    errors: tuple = (ValueError, OSError)
    suffix: str = ""


def scores_seeds(folder):
    yield b"score,same,left,right\n" + b"".join(b"0.%d,%d,ada,bo\n" % (i, i % 2) for i in range(9))
    yield '\ufeffsame;score;note\r\n1;-3e-5;"é; ""x"""\r\n\r\ntrue;2;\r\n0;1;a\r\n'.encode()


def run_log_seeds(folder):
    from keras_siamese.diagnosis.run import line_of

    values = {"loss": 0.5, "auc": 0.9, "eer": None, "auc_se": 0.01, "eer_se": 0.01}
    logs = {"loss": 0.5, "val_auc": 0.9}
    yield b"".join(line_of(epoch, values, logs, epoch == 2) for epoch in range(4))


def csv_run_seeds(folder):
    yield b"epoch,loss,val_auc,val_eer\n" + b"".join(b"%d,0.5,0.%d,NA\n" % (i, i) for i in range(6))
    yield b"epoch;loss;val_auc;val_eer\r\n0;.5;.6;.4\r\n1;.4;.6;.4\r\n1;.3;.6;.4\r\n"


def report_seeds(folder):
    for name in ("margin", "control"):
        report = json.loads((ROOT / f"tests/diagnosis/recorded/{name}.json").read_text(encoding="utf-8"))
        yield json.dumps(report).encode()


def samples_seeds(folder):
    import numpy as np

    for save in (np.savez, np.savez_compressed):
        save(folder / "x.npz", x=np.eye(3, dtype="float32"), labels=np.array(["a", "b", "a"]))
        yield (folder / "x.npz").read_bytes()
    np.savez(folder / "x.npz", left=np.eye(3), right=np.asfortranarray(np.eye(3)), same=np.array([True, False, True]))
    yield (folder / "x.npz").read_bytes()


def verifier_seeds(folder):
    import keras
    import numpy as np

    import keras_siamese as ks

    layers = [keras.Input((3,)), keras.layers.Dense(2), keras.layers.UnitNormalization()]
    siamese = ks.SiameseWrapper(keras.Sequential(layers), head="logistic")
    verifier = ks.Verifier(siamese, threshold=0.5)
    verifier([np.eye(3, dtype="float32")] * 2)
    verifier.save(folder / "a.keras")
    yield (folder / "a.keras").read_bytes()


def model_seeds(folder):
    import keras

    import keras_siamese as ks

    yield from verifier_seeds(folder)
    left, right, encoder = keras.Input((3,)), keras.Input((3,)), keras.layers.Dense(2, activation="relu")
    model = keras.Model([left, right], ks.layers.DistanceLayer("cosine")([encoder(left), encoder(right)]))
    model.compile("adam", ks.losses.ContrastiveLoss())
    model.save(folder / "a.keras")
    yield (folder / "a.keras").read_bytes()


def image_seeds(folder):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (9, 7, 4), dtype="uint8"))
    deep = Image.fromarray(rng.integers(0, 65536, (9, 7)).astype("uint16"))
    for name, image in {
        "PNG": colours,
        "JPEG": colours.convert("RGB"),
        "BMP": colours.convert("RGB"),
        "GIF": colours.convert("P"),
        "TIFF": colours.convert("RGB"),
        "WEBP": colours,
        "PPM": colours.convert("L"),
    }.items():
        image.save(folder / "image", format=name)
        yield (folder / "image").read_bytes()
    deep.save(folder / "image", format="PNG")
    yield (folder / "image").read_bytes()
    colours.save(folder / "image", format="TIFF", compression="tiff_lzw")
    yield (folder / "image").read_bytes()


def pairs_seeds(folder):
    yield b"1\t2\nAda\t1\t2\nBo\t1\t2\nAda\t2\tBo\t1\nBo\t2\tAda\t1\n"
    yield b"2 1\nAda 1 2\nAda 2 Bo 1\nBo 1 2\nBo 2 Ada 1\n"


def records_seeds(folder):
    yield json.dumps([{"epoch": 3, "seconds": 1.5, "logs": {"val_eer": 0.1}, "flags": [], "cause": None}] * 3).encode()


def folder_seeds(folder):
    """Folders as JSON: paths of files, and of links with their targets."""
    yield json.dumps([["ada/1.png", None], ["bo/1.png", None], ["bo/2.png", "../ada/1.png"], ["cy", "bo"]]).encode()
    yield json.dumps([["a/b/1.png", None], ["a/b/up", ".."], ["a/out", "/etc"], ["d/1.png", "/etc/passwd"]]).encode()


def read_image(path):
    from keras_siamese.data import ImageFiles
    from keras_siamese.data.decoding import reason_against

    files = ImageFiles([path], (8, 8), check=False)
    reason_against(files._decode, path)
    return files[0]


def read_pairs(path):
    from keras_siamese._reading import text_of
    from keras_siamese.data.explicit import parse_lfw_lines

    return parse_lfw_lines(text_of(path).rstrip().splitlines(), str(path))


def read_folder(path):
    """Makes the folder that the file describes, and reads it: no image may be outside."""
    from keras_siamese.data import ImageFolder

    try:
        entries = [(str(name), target) for name, target in json.loads(Path(path).read_bytes())]
    except (ValueError, TypeError, RecursionError):
        return None
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as parent:
        root = Path(parent) / "root"
        root.mkdir()
        (Path(parent) / "secret.png").write_bytes(b"")
        for name, target in entries:
            place = root / name.replace("..", "").strip("/")
            with contextlib.suppress(OSError, ValueError):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(b"") if target is None else place.symlink_to(str(target))
        found = ImageFolder(root, (4, 4), check=False, on_error="skip")
        outside = [one for one in found.paths if not os.path.realpath(one).startswith(os.path.realpath(root))]
        assert not outside, f"outside of the folder: {outside}"
        return found


def readers():
    """The readers by name."""
    from keras_siamese import Verifier
    from keras_siamese.diagnosis import Diagnosis
    from keras_siamese.diagnosis.files import read_model, read_samples
    from keras_siamese.diagnosis.run import Run
    from keras_siamese.tuning.folds import read_json
    from keras_siamese.verification.tables import read_scores

    return {
        "scores": Reader(scores_seeds, read_scores),
        "run_log": Reader(run_log_seeds, Run.of),
        "csv_run": Reader(csv_run_seeds, Run.of),
        "samples": Reader(samples_seeds, read_samples),
        "pairs": Reader(pairs_seeds, read_pairs),
        "records": Reader(records_seeds, lambda path: read_json(path, "list")),
        "image": Reader(image_seeds, read_image, (OSError,)),
        "folder": Reader(folder_seeds, read_folder),
        "report": Reader(report_seeds, Diagnosis.from_json),
        "verifier": Reader(verifier_seeds, Verifier.load, suffix=".keras"),
        "model": Reader(model_seeds, read_model, suffix=".keras"),
    }


def changed(content, seeds, rng):
    """`content` changed one to four times, in ways drawn from `rng`."""
    for _ in range(rng.randint(1, 4)):
        ways = [flipped, flipped, cut, repeated, spliced, renumbered]
        if content[:2] == b"PK":
            ways = [flipped, cut, spliced, *[repacked] * 12]  # others fail at the checksums
        elif content[:1] in b"{[" and content:
            ways += [restructured] * 6
        content = rng.choice(ways)(content, seeds, rng)
    return content


def flipped(content, seeds, rng):
    content = bytearray(content or b"0")
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        content[rng.randrange(len(content))] = rng.choice((0, 10, 34, 44, 128, 255, rng.randrange(256)))
    return bytes(content)


def stretch(content, rng):
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 4, 16, 64, len(content))))


def cut(content, seeds, rng):
    start, end = stretch(content, rng)
    return content[:start] + content[end:]


def repeated(content, seeds, rng):
    start, end = stretch(content, rng)
    return (content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:])[: 2**20]


def spliced(content, seeds, rng):
    other = rng.choice(seeds)
    (start, end), (first, last) = stretch(content, rng), stretch(other, rng)
    return content[:start] + other[first:last] + content[end:]


def renumbered(content, seeds, rng):
    """A run of digits becomes another number."""
    digits = [place for place, one in enumerate(content[:100_000]) if 48 <= one < 58]
    if not digits:
        return content
    start = end = rng.choice(digits)
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return content[:start] + rng.choice(NUMBERS) + content[end:]


def restructured(content, seeds, rng):
    """JSON, or one of its lines, with another value somewhere; as it was if it is none any more."""
    lines = content.split(b"\n")
    place = rng.randrange(max(1, len(lines) - 1))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return content
    parents, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list)) and one:
            parents.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    if parents:
        parent = rng.choice(parents)
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        way = rng.randrange(5)
        if way == 0:
            del parent[key]
        elif way == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "epoch", "class_name", "module", "x" * 300))] = parent.pop(key)
        elif way == 2 and isinstance(parent, list):
            parent += parent[:100]
        else:
            parent[key] = rng.choice(VALUES)
    lines[place] = json.dumps(value).encode()
    if rng.random() < 0.01:
        lines[place] = b"[" * 10**5
    return b"\n".join(lines)


def repacked(content, seeds, rng):
    """A zip archive with one of its members changed, renamed, left out or twice, and right checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return content
    if not members:
        return content
    place = rng.randrange(len(members))
    name, inside = members[place]
    way = rng.randrange(8)
    if way == 0:
        name = rng.choice(("../a", "/a", "model.weights.npz", "labels.npy", "assets/../../a", ""))
    elif way == 1:
        members.append((name, inside))
    elif way == 2:
        del members[place]
    if way != 2:
        members[place] = (name, changed(inside, [inside for _, inside in members], rng) if way > 2 else inside)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, inside in members:
            archive.writestr(name or "a", inside)
    return out.getvalue()


class TooSlow(BaseException):
    """Raised if an input takes longer than `SECONDS`."""


def stop(signum, frame):
    raise TooSlow(f"more than {SECONDS} s")


def outcome_of(reader, path):
    """ "value" or "error" if the reader does what it may; else what it raised, and where, as one line."""
    try:
        reader.read(path)
        return "value"
    except reader.errors:
        return "error"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "keras_siamese" in one.filename]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
        return f"{type(error).__name__} in {where}: {str(error)[:200]}"


def input_of(name, seeds, seed, number):
    rng = random.Random(f"{seed} {name} {number}")
    return changed(rng.choice(seeds), seeds, rng)


def fuzz(name, reader, numbers, seed, note=lambda number: None):
    """Counts of outcomes, and findings `{what it raised and where: (number, input)}`, of the inputs `numbers`."""
    counts, findings = {"value": 0, "error": 0, "finding": 0}, {}
    slowest, before = 0.0, signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(folder)
        seeds, path = list(reader.seeds(folder)), folder / f"input{reader.suffix}"
        for one in seeds:
            path.write_bytes(one)
            assert outcome_of(reader, path) == "value", f"the reader {name} does not read a valid file"
        for number in numbers:
            note(number)
            content = input_of(name, seeds, seed, number)
            path.write_bytes(content)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            start = time.perf_counter()
            outcome = outcome_of(reader, path)
            signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - start)
            counts[outcome if outcome in counts else "finding"] += 1
            if outcome not in counts:
                findings.setdefault(outcome.partition(":")[0], (number, outcome, content))
    signal.signal(signal.SIGALRM, before)
    return {**counts, "slowest": round(slowest, 2)}, findings


def limited():
    """Limits the memory of this process to `MEMORY` more than it has, and logs nothing."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    logging.disable()


def in_child(name, reader, count, seed, keep):
    """Fuzzes one reader in a fork, which a crash of a C library may end, and prints what came out."""
    with tempfile.NamedTemporaryFile("r+") as last:
        child = os.fork()
        if child == 0:
            limited()

            def note(number):
                os.pwrite(last.fileno(), f"{number:12d}".encode(), 0)

            code = 1
            try:
                counts, findings = fuzz(name, reader, range(count), seed, note)
                print(f"{name}: {json.dumps(counts)}", flush=True)
                for number, outcome, content in findings.values():
                    print(f"  finding, input {number}: {outcome!r}", flush=True)
                    if keep is not None:
                        (Path(keep) / name).mkdir(parents=True, exist_ok=True)
                        (Path(keep) / name / f"{seed}_{number}").write_bytes(content)
                code = 1 if findings else 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status < 0:
            print(f"{name}: killed by {signal.Signals(-status).name} at input {last.read(12).strip()}", flush=True)
        return status


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", nargs="*", help="names of readers (default: all)")
    parser.add_argument("--count", type=int, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the inputs of findings")
    options = parser.parse_args()
    os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.path.append(str(ROOT))
    every = readers()
    statuses = [
        in_child(name, every[name], options.count or COUNTS.get(name, MANY), options.seed, options.keep)
        for name in options.readers or every
    ]
    sys.exit(int(any(statuses)))


if __name__ == "__main__":
    main()
