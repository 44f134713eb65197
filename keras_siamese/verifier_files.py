"""The file of a `Verifier`: what it holds of the model, and what an error says about one that cannot be read.

Contract: only `verifier` imports this module.

    config = uncompiled(keras.saving.serialize_keras_object(siamese))
    versions = saved_with("verifier.keras")                     # raises if the file is not a complete archive
"""

import warnings
from pathlib import Path

import keras

from keras_siamese._reading import check_members, json_of, opened_archive


def warn_of_code(model):
    """Warn if a saved `model` cannot be loaded in Keras's safe mode, because it holds Python code."""
    names = ", ".join(layer.name for layer in model._flatten_layers() if isinstance(layer, keras.layers.Lambda))
    if names:
        problem = "are Lambda layers, whose Python code Keras does not load in safe mode"
        instead = "Replace them by keras_siamese.layers.DistanceLayer or by keras.ops"
        load = "or load the saved verifier with Verifier.load(path, safe_mode=False); it runs without your imports"
        warnings.warn(f"The layers {names} of {model.name!r} {problem}. {instead}, {load}", stacklevel=3)


def uncompiled(config):
    """A serialized model's nested `config` without losses and optimizers.

    A verifier is not trained any more, and a custom loss might not be registered where it is loaded.
    """
    if isinstance(config, dict):
        return {name: uncompiled(value) for name, value in config.items() if name != "compile_config"}
    return [uncompiled(value) for value in config] if isinstance(config, list) else config


def saved_with(path):
    """Read from a verifier's file which versions saved it, for errors. Raises if the file is not a complete archive."""
    if not Path(path).is_file():
        raise ValueError(f"`path` must be a saved Verifier; there is no file {str(path)!r}")
    try:
        with opened_archive(path) as archive:
            check_members(path, archive)
            damaged = archive.testzip()
            config = json_of(archive.read("config.json"), "config.json")
            metadata = json_of(archive.read("metadata.json"), "metadata.json")
    except ValueError as error:
        problem = f"{str(path)!r} is cut short or is not a .keras file: {error}"
        raise ValueError(f"`path` must be a saved Verifier; {problem}") from error
    if damaged is not None:
        raise ValueError(f"`path` must be a saved Verifier; {str(path)!r} is damaged: {damaged} inside it is corrupt")
    ours, kerass = within(config, "config", "evidence", "keras_siamese"), within(metadata, "keras_version")
    return f"keras_siamese {ours or 'of unknown version'} and Keras {kerass}"


def within(value, *keys):
    """The value at `keys` of nested dicts, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
