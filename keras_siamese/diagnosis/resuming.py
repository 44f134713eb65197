"""What a resumed run needs and its run log cannot hold: the arrays of a run, in a file beside the log.

Contract: the file of `run.jsonl` is `run.jsonl.npz`. `RunRecorder` writes it when a fit begins, and again when the
embeddings are no longer finite. It holds numbers of the first weights, to which later ones are compared, and the last
finite embeddings, which such a run's report describes. No code of the file is executed. `holes_of` tells whether a run
continues where the log ends. Imports `scoring`.

    write_arrays(beside(log), arrays_of(kernels_of(model)))
    kernels = kernels_in(kept(beside(log)), like=kernels_of(model))
"""

import logging
import zipfile
import zlib

import numpy as np

from keras_siamese.scoring import ScoredTrials

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def beside(path):
    """The path of the arrays that belong to the run log at `path`."""
    return path.with_name(f"{path.name}.npz")


def kept(path):
    """The arrays in the file at `path` by name; {} if it is missing or, with a warning in the log, cannot be read.

    A file whose parts are compressed is not read: it may need far more memory than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("its parts are compressed")
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        return {}
    except UNREADABLE as error:
        logger.warning("%s cannot be read, so that the resumed run is compared to later weights: %s", path, error)
        return {}


def arrays_of(kernels, initial=None):
    """Arrays by name, of what `kernels_of` gives and of the `initial` values of variables, `{id: array}`."""
    found = {f"kernel_{place}": values for place, (_, _, values) in enumerate(kernels)}
    return found | {f"variable_{place}": values for place, values in enumerate((initial or {}).values())}


def kernels_in(arrays, like):
    """The kernels in `arrays`, with the names and sizes of those in `like`; None if they do not match."""
    found = [arrays.get(f"kernel_{place}") for place in range(len(like))]
    if any(one is None or one.shape != values.shape for one, (_, _, values) in zip(found, like, strict=True)):
        return None
    return [(name, size, values) for (name, size, _), values in zip(like, found, strict=True)]


def initial_in(arrays, like):
    """The values of variables in `arrays`, `{id: array}` with the ids of `like`; None if they do not match."""
    found = [arrays.get(f"variable_{place}") for place in range(len(like))]
    if any(one is None or one.shape != values.shape for one, values in zip(found, like.values(), strict=True)):
        return None
    # NumPy reads the types of a backend, such as bfloat16, as bytes
    pairs = zip(like.items(), found, strict=True)
    return {name: one if one.dtype == values.dtype else one.view(values.dtype) for (name, values), one in pairs}


def fingerprint(kernels):
    """A whole number that tells weights apart, of the vector `sampled_kernels`."""
    return zlib.crc32(np.ascontiguousarray(kernels).tobytes())


def scored_in(arrays, trials):
    """The `ScoredTrials` of the last finite embeddings in `arrays`; None if they are not those of `trials`."""
    embeddings, scores = arrays.get("embeddings"), arrays.get("scores")
    if trials is None or scores is None or embeddings is None or scores.shape != (len(trials),):
        return None
    return ScoredTrials(trials, embeddings, scores)


def holes_of(last, epoch, kernels):
    """Why a run that begins at `epoch` is not the one in the log continued, sentences; [] if it is.

    Args:
        last: the last line of the log, a dict.
        epoch: index of the epoch that begins.
        kernels: `sampled_kernels` of the model when it begins.
    """
    if last["epoch"] < epoch - 1:
        return [f"the log ends after epoch {last['epoch'] + 1}, and epoch {epoch + 1} begins"]
    if last.get("state", {}).get("weights") not in (None, fingerprint(kernels)):
        begins = f"epoch {epoch + 1} begins with other weights than those with which epoch {epoch} ended"
        return [f"{begins}, as from a backup that was made within an epoch"]
    return []
