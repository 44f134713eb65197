"""Attach to any siamese program: find the parts of its model, what its output means, and read its data.

    anatomy = keras_siamese.dissect(model)
    print(anatomy)                            # which layers are tower, comparator and head

Contract: this room knows what a user's model looks like; all later rooms ask an `Anatomy`. Imports `data`, `layers` and
`verification`.
"""

from keras_siamese.attach.anatomy import Anatomy, dissect

__all__ = ["Anatomy", "dissect"]
