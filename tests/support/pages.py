"""The pages of the documentation: README.md and the Markdown files below docs/, and the blocks of code in them.

blocks("python", DOCS / "start.md")                  # the code of its Python blocks, in order
run(blocks("python", page), page)                    # runs them in one namespace, and returns it
"""

import importlib.util
import re
from pathlib import Path

import keras

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page):
    """A page's path from the repository's root."""
    return page.relative_to(ROOT).as_posix()


def coded(text):
    """The `(language, code)` of each block that states its language."""
    return BLOCK.findall(text)


def blocks(language, page):
    return [code for found, code in coded(page.read_text(encoding="utf-8")) if found == language]


def run(code, page, namespace=None):
    """Runs the blocks of `code` in order, in one namespace, and returns the namespace."""
    namespace = {} if namespace is None else namespace
    for block in code:
        exec(compile(block, str(page), "exec"), namespace)
    return namespace


def can_run(block):
    """Whether what a block needs is there: a gradient tape needs the TensorFlow backend, an import its package."""
    if "GradientTape" in block and keras.backend.backend() != "tensorflow":
        return False
    packages = re.findall(r"^(?:import|from) (tensorflow|torch|keras_tuner|PIL)\b", block, re.MULTILINE)
    return all(importlib.util.find_spec(name) for name in packages)
