"""The one decorator that makes a class serialisable under the package's name.

    @export
    class ContrastiveLoss(PairLoss): ...

registers it as ``"keras_siamese>ContrastiveLoss"``, so that a saved model loads in safe mode without
``custom_objects`` and Keras finds the class by that string. `exported()` lists what was registered: registries and
tests are built from it, none is kept by hand.
"""

import keras

PACKAGE = "keras_siamese"
_exported = {}


def export(cls):
    """Registers `cls` with Keras as ``keras_siamese>ClassName``; returns it unchanged."""
    _exported[cls.__name__] = cls
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


def exported(base=object):
    """The registered classes below `base`, by name, in the order of their definition."""
    return {name: cls for name, cls in _exported.items() if issubclass(cls, base)}
