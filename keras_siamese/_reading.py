"""Read files that somebody else may have made: no code is executed, and memory has a limit.

Contract: the functions raise `ValueError` if a file is larger than a limit, or holds what the package does not write.
The message begins with the name of the file. Memory grows at most in proportion to the file's size. `SECURITY.md` says
what each reader guarantees. Any module may import this one; it imports no other module of the package.

    report = json_of(bytes_of("report.json"), "report.json")
    check_model_file("verifier.keras")          # before Keras reads it
    with checked_arrays("samples.npz") as archive:
        x = archive["x"]
"""

import contextlib
import io
import json
import lzma
import struct
import zipfile
import zlib

import numpy as np

MAX_TEXT = 2**27  # bytes of a text file that is read whole; as JSON it needs at most 25 times that in memory
MAX_UNPACKED = 2**30  # bytes that a zip archive may hold when unpacked, whatever its size
MAX_EXPANSION = 100  # a larger archive may hold so many times its own size
# What zipfile, its decompressors, NumPy and h5py raise for a damaged archive; RuntimeError if it is encrypted.
DAMAGED = (OSError, ValueError, KeyError, EOFError, IndexError, RuntimeError, OverflowError, TypeError, struct.error)
DAMAGED += (MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # a member may claim any size
MODEL_PARTS = ("config.json", "metadata.json", "model.weights.h5")
# Parts of Keras that a model is not made of: with them, a config can download files and run code in older versions.
NO_MODEL = {"utils", "saving", "config", "datasets", "export", "legacy", "testing", "backend", "trainers", "api"}
# Layers that read other files, or hold pickled code.
READS_MORE = {"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp", "keras_siamese")
FILE_KEYS = ("vocabulary", "idf_weights")  # Keras reads a file if the value is text


def bytes_of(path, limit=MAX_TEXT):
    """The content of the file at `path`, which may have at most `limit` bytes."""
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} must have at most {limit:,} bytes; it has more")
    return content


def text_of(path, name=None):
    """The content of the text file at `path`, in UTF-8 and of at most `MAX_TEXT` bytes; errors call it `name`."""
    try:
        return bytes_of(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name or path} must be a text file in UTF-8; {error}") from error


def json_of(text, name):
    """The value of the JSON `text`; `name` is what errors call the file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{name} is not JSON: {why}") from error


def check_archive(path):
    """Check the zip archive at `path` without unpacking it: what it holds, and how large that is."""
    with opened_archive(path) as archive:
        check_members(path, archive)


@contextlib.contextmanager
def opened_archive(path):
    """The zip archive at `path`. What damaged archives raise in the block becomes `ValueError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ValueError as error:
        if str(error).startswith(str(path)):  # says already what is wrong
            raise
        raise ValueError(f"{path} must be a whole zip archive; {error}") from error
    except DAMAGED as error:
        raise ValueError(f"{path} must be a whole zip archive; {type(error).__name__}: {error}") from error


def check_members(path, archive):
    """Refuse members of an archive that lead out of a folder, are links or encrypted, or unpack to too much."""
    size = archive.fp.seek(0, io.SEEK_END)
    allowed, found = max(MAX_UNPACKED, MAX_EXPANSION * size), 0
    for member in archive.infolist():
        name, found = member.filename, found + member.file_size
        if name.startswith(("/", "\\")) or ":" in name or ".." in name.replace("\\", "/").split("/"):
            raise ValueError(f"{path} must hold files below one folder; it holds {name!r}")
        if member.external_attr >> 28 == 0o12 or member.flag_bits & 1:
            raise ValueError(f"{path} must hold plain files; {name!r} is a link or encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{path} must hold stored or deflated files; {name!r} is compressed in another way")
    if found > allowed:
        raise ValueError(f"{path} must unpack to at most {allowed:,} bytes; it unpacks to {found:,}")


@contextlib.contextmanager
def checked_arrays(path):
    """The arrays of an `.npz` file, as `numpy.load` gives them, each no larger than its part of the file."""
    with opened_archive(path) as archive:
        check_members(path, archive)
        for member in archive.infolist():
            with archive.open(member) as file:
                check_array(f"{path} must hold arrays; {member.filename!r}", file, member.file_size)
    with np.load(path, allow_pickle=False) as archive:
        yield archive


def check_array(what, file, size):
    """Check that the array in the `.npy` `file` is as large as its header says; `size` is that of the file in bytes."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
        # Python's integers do not overflow. Object arrays are refused when they are read.
        count, size = np.prod([int(side) for side in shape], dtype=object), size - file.tell()
    except Exception as error:  # NumPy parses the header as Python code, and raises what the parser does
        raise ValueError(f"{what} is not an array: {type(error).__name__}: {error}") from error
    if min(shape, default=0) < 0 or (count * max(dtype.itemsize, 1) > size and not dtype.hasobject):
        raise ValueError(f"{what} has {size:,} bytes and claims the shape {shape} of {dtype}")


def check_model_file(path, compile=True):
    """Check the `.keras` file at `path` before Keras reads it, beyond what Keras's safe mode refuses.

    Its config may name classes of Keras and its own packages, and registered ones; others are imported by old versions
    of Keras. The weights must be in the HDF5 file itself. Neither may read other files. Without `compile`, Keras leaves
    out what the model was compiled with, and this is not checked.
    """
    with opened_archive(path) as archive:
        check_members(path, archive)
        names = [member.filename for member in archive.infolist()]
        other = [name for name in names if name not in MODEL_PARTS and not name.startswith("assets/")]
        if other or len(set(names)) < len(names) or not set(MODEL_PARTS) <= set(names):
            wanted = f"once each of {', '.join(MODEL_PARTS)}, and assets/"
            raise ValueError(f"{path} must hold {wanted}; it holds {', '.join(names[:20])}")
        for name in MODEL_PARTS[:2]:
            if archive.getinfo(name).file_size > MAX_TEXT:
                raise ValueError(f"{path} must have at most {MAX_TEXT:,} bytes of {name}; it has more")
        config = json_of(archive.read("config.json"), f"{path}: config.json")
        if isinstance(config, dict) and not compile:
            config.pop("compile_config", None)
        check_config(path, config)
        metadata = json_of(archive.read("metadata.json"), f"{path}: metadata.json")
        if not isinstance(metadata, dict):
            raise ValueError(f"{path} must have an object in metadata.json; it has a {type(metadata).__name__}")
        size = archive.fp.seek(0, io.SEEK_END)
        check_weights(path, archive.read("model.weights.h5"), max(MAX_UNPACKED, MAX_EXPANSION * size))


def check_config(path, config):
    """Check the classes, functions and files that the `config` of a model names, at any depth."""
    if not isinstance(config, dict):
        raise ValueError(f"{path} must have an object in config.json; it has a {type(config).__name__}")
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            if "class_name" in value and not is_known(value):
                found = f"{value.get('module')!s:.200}.{value['class_name']!s:.200}"
                must = "classes of Keras and registered ones only, which read no other files"
                raise ValueError(f"{path} must be of {must}; it names {found}. Import the code that registers it first")
            files = [value[key] for key in FILE_KEYS if isinstance(value.get(key), str)]
            if files:
                raise ValueError(f"{path} must hold its vocabulary; it names the file {files[0]!r:.200}")


def is_known(config):
    """Whether a class or function is one of Keras's own that a model is made of, or is registered."""
    import keras

    name, module, registered = (config.get(key) for key in ("class_name", "module", "registered_name"))
    is_function = name == "function"
    looked_up = config.get("config") if is_function else registered
    if isinstance(looked_up, str) and keras.saving.get_registered_object(looked_up) is not None:
        return True
    if module is None or module == "builtins":
        return name not in READS_MORE
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    parts = module.split(".")
    if parts[:3] == ["keras", "src", "backend"] and parts[4:5] == ["optimizers"]:  # those that PyTorch runs
        parts.remove("backend")
    if is_function and parts[:2] == ["keras", "src"]:
        return False
    return parts[0] in PACKAGES and not NO_MODEL & set(parts[1:]) and name not in READS_MORE


def check_weights(path, content, allowed):
    """Check that an HDF5 file, bytes, holds all its numbers itself, at most `allowed` bytes of them."""
    import h5py

    # h5py loses an error that is raised while it visits.
    links, outside, sizes = [], [], [0]

    def see_link(name, info):
        if info.type != h5py.h5l.TYPE_HARD:
            links.append(name)

    def see_object(name, found):
        if isinstance(found, h5py.Dataset):
            sizes.append(found.nbytes)
            if found.external or found.is_virtual:
                outside.append(name)

    with h5py.File(io.BytesIO(content), "r") as file:
        file.id.links.visit(see_link, info=True)
        file.visititems(see_object)
    if links or outside:
        found = f"{links[0]!r:.200} is a link" if links else f"{outside[0]!r:.200} is in another file"
        raise ValueError(f"{path} must hold all its weights; {found}")
    if sum(sizes) > allowed:
        raise ValueError(f"{path} must have at most {allowed:,} bytes of weights; it claims {sum(sizes):,}")
