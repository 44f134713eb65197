"""The decorator that makes a class serialisable under the package's name.

    @export
    class ContrastiveLoss(PairLoss): ...

registers it as ``"keras_siamese>ContrastiveLoss"``. So Keras finds the class by that string, and a saved model loads in
safe mode without ``custom_objects``. `exported()` lists the registered classes; registries and tests are built from it.
`function_name` and `function_of` do the same for the functions that users pass as options.
"""

import keras

PACKAGE = "keras_siamese"
_exported = {}


def export(cls):
    """Register `cls` with Keras as ``keras_siamese>ClassName``; return it unchanged."""
    _exported[cls.__name__] = cls
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


def exported(base=object):
    """The registered subclasses of `base`, by name, in the order of their definition."""
    return {name: cls for name, cls in _exported.items() if issubclass(cls, base)}


def function_name(what, function):
    """The name under which a user's `function` is registered with Keras; `what` names the option in an error."""
    name = keras.saving.get_registered_name(function)
    if keras.saving.get_registered_object(name) is not function:
        raise ValueError(
            f"The {what} {getattr(function, '__name__', function)!r} cannot be saved, because Keras could not "
            "find it when loading: decorate it with @keras.saving.register_keras_serializable()"
        )
    return name


def function_of(what, name):
    """The function that is registered with Keras as `name`."""
    function = keras.saving.get_registered_object(name)
    if function is None:
        raise ValueError(f"The {what} {name!r} is not registered: import the module that defines it before loading")
    return function
