"""The decorator that registers a class with Keras, and the list of what it registered."""

import keras
import pytest

from keras_siamese import _export
from keras_siamese.distances import Distance
from keras_siamese.losses import SiameseLoss


@pytest.fixture
def forget():
    """Removes what a test registers."""
    ours, keras_own = dict(_export._exported), dict(keras.saving.get_custom_objects())
    yield
    _export._exported.clear()
    _export._exported.update(ours)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(keras_own)


def test_export_registers_under_the_package_name(forget):
    class Registered:
        def get_config(self):
            return {}

    assert _export.export(Registered) is Registered
    assert keras.saving.get_registered_object("keras_siamese>Registered") is Registered
    assert keras.saving.get_registered_name(Registered) == "keras_siamese>Registered"
    assert _export.exported()["Registered"] is Registered


def test_exported_of_a_base_holds_its_subclasses_in_order(forget):
    distances = _export.exported(Distance)
    assert list(distances)[:2] == ["EuclideanDistance", "SquaredEuclideanDistance"]
    assert all(issubclass(cls, Distance) for cls in distances.values())
    assert not set(distances) & set(_export.exported(SiameseLoss))

    @_export.export
    class NewDistance(Distance):
        pass

    assert list(_export.exported(Distance)) == [*distances, "NewDistance"]


def test_exported_is_a_copy():
    _export.exported().clear()
    assert _export.exported()


def test_every_exported_class_is_found_by_its_name():
    for name, cls in _export.exported().items():
        assert keras.saving.get_registered_object(f"keras_siamese>{name}") is cls, name
