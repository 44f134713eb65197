"""What JAX compiles for one trial is used again by the next.

Contract: within the block, JAX keeps each compiled function in a folder for this process, by a hash of the function. A
model of the same shapes, which is a new object, then takes a fraction of a second instead of some seconds. TensorFlow
and PyTorch have nothing like it: the block changes nothing there. `folds` uses it.

    with kept_compiled():
        model.fit(…)
"""

import contextlib
import functools
import logging
import tempfile

import keras

# All functions are kept, whatever the size and the time; by default JAX keeps only those that take a second.
SETTINGS = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}
FOLDER = "jax_compilation_cache_dir"
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def kept_compiled():
    """Lets JAX keep what it compiles in this block, unless the program has chosen a folder for it."""
    settings = settings_now()
    if not settings or settings[FOLDER]:
        yield
        return
    change({**SETTINGS, FOLDER: folder().name})
    try:
        yield
    finally:
        change(settings)


def change(settings):
    """Changes JAX's settings; it looks at its folder only when it compiles for the first time, or after a reset."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def settings_now():
    """The values of JAX's settings for this, or an empty dict if they cannot be used."""
    if keras.backend.backend() != "jax":
        return {}
    import jax

    try:
        from jax.experimental.compilation_cache.compilation_cache import reset_cache  # noqa: F401

        folder()
        return {name: getattr(jax.config, name) for name in (*SETTINGS, FOLDER)}
    except (AttributeError, ImportError, OSError) as error:  # an older JAX, a full disk
        logger.info("Each trial is compiled anew: %s", error)
        return {}


@functools.cache
def folder():
    """A folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="keras_siamese_compiled_")
