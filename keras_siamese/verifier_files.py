"""The file of a `Verifier`: what it holds of the model, and what an error says about one that cannot be read.

Contract: only `verifier` imports this module.

    config = uncompiled(keras.saving.serialize_keras_object(siamese))
    versions = saved_with("verifier.keras")                     # raises if the file is not a complete archive
"""

import builtins
import dis
import inspect
import warnings
from pathlib import Path

import keras

from keras_siamese._reading import PACKAGES, check_members, is_known, json_of, opened_archive

REGISTER = "Decorate it with @keras.saving.register_keras_serializable(), and import its module before loading"
PLAIN = (keras.Model.from_config.__func__, keras.layers.Layer.from_config.__func__)  # these call the class


def check_suffix(path):
    """Refuse a path that `Verifier.load` could not read: Keras writes another format for each ending."""
    if Path(path).suffix != ".keras":
        must = "`filepath` must end with '.keras', the only form that Verifier.load reads"
        raise ValueError(f"{must}; got {str(path)!r}. Use `export` for a runtime without Keras")


def warn_of_code(siamese):
    """Warn if a saved `siamese` model cannot be loaded without more ado, because it holds Python code of the user."""
    for problem in (lambda_problem(siamese), class_problem(siamese)):
        if problem is not None:
            warnings.warn(problem, stacklevel=3)


def lambda_problem(siamese):
    """What stands against loading the Python lambdas of `siamese`, a sentence or two; None if it has none."""
    found = [one for one in siamese._flatten_layers() if isinstance(one, keras.layers.Lambda)]
    found = {one.name: one.function for one in found if getattr(one.function, "__name__", None) == "<lambda>"}
    if not found:
        return None
    problem = f"The Lambda layers {', '.join(found)} hold Python code, which Keras does not load in safe mode"
    replace = "Replace them by keras_siamese.layers.DistanceLayer or by a registered layer of your own"
    used = sorted(set().union(*(global_names(function.__code__) for function in found.values())))
    if used:
        cannot = "are not defined when the file is loaded, so safe_mode=False does not help"
        return f"{problem}. The names {', '.join(used)} inside them {cannot}. {replace}"
    return f"{problem}. {replace}, or load the file with Verifier.load(path, safe_mode=False)"


def global_names(code):
    """The names of modules and of functions that are not Python's own, in compiled `code` and what it nests."""
    names = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"} - set(dir(builtins))
    return names.union(*(global_names(one) for one in code.co_consts if isinstance(one, type(code))))


def class_problem(siamese):
    """Which classes and functions of `siamese` Keras cannot make again from their config; None if it can."""
    problems, names = [], unregistered(uncompiled(keras.saving.serialize_keras_object(siamese)))
    if names:
        problem = (
            f"{', '.join(names)} in {siamese.name!r} is not registered with Keras, so other processes do not find it"
        )
        problems.append(f"{problem}. {REGISTER}")
    for kind, why in refusing(siamese):
        must = "its __init__ must take what its get_config gives, as **kwargs, and pass this to super().__init__"
        problems.append(f"{kind} cannot be made from its config ({why}): {must}")
    return ". ".join(problems) or None


def refusing(siamese):
    """Pairs `(class, error)` of layers of `siamese` whose `__init__` does not take what their `get_config` gives."""
    found = {}
    for layer in siamese._flatten_layers():
        kind = type(layer)
        if kind.__module__.split(".")[0] not in PACKAGES and kind.from_config.__func__ in PLAIN:
            try:
                inspect.signature(kind).bind(**layer.get_config())
            except TypeError as error:
                found[kind.__name__] = str(error)
    return list(found.items())


def unregistered(config):
    """Names of the classes and functions in a serialized `config` that are neither Keras's nor registered, sorted."""
    found, waiting = set(), [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            module, name, registered = (value.get(key) for key in ("module", "class_name", "registered_name"))
            looked_up = value.get("config") if name == "function" else registered
            if not isinstance(looked_up, str) or keras.saving.get_registered_object(looked_up) is not None:
                continue
            if module in (None, "builtins"):  # of the script that runs, or a function
                found.add(looked_up)
            elif isinstance(module, str) and not is_known(value):
                found.add(f"{module}.{name}")
    return sorted(found)


def why_unreadable(path, error):
    """What an `error` of loading the file at `path` comes from, and what to do, without the configs that Keras lists.

    No code from the file is executed.
    """
    with opened_archive(path) as archive:
        config = json_of(archive.read("config.json"), "config.json")
    names = unregistered(uncompiled(config))
    if names:
        scope = "or load it within keras.saving.custom_object_scope({…})"
        return f"{', '.join(names)} in it is not registered with Keras in this process. {REGISTER}, {scope}"
    return str(error).rpartition("Exception encountered: ")[2]


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
