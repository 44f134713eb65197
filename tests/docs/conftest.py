"""Fixtures of the tests of the documentation: the monitors of all fits, and the site."""

import importlib.util
import os
import subprocess
import sys

import pytest

import keras_siamese as ks
from tests.support.pages import ROOT

# mkdocs with a network that refuses every connection, in a process of its own.
BUILD = """
import socket, sys

def refuse(*arguments, **options):
    raise OSError(f"the documentation asks the network for {arguments[1:]}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]])
"""


@pytest.fixture
def monitors(monkeypatch):
    """The monitors of all fits, each once, in the order in which the fits ended."""
    ended, end = [], ks.callbacks.DivergenceMonitor.on_train_end

    def on_train_end(self, logs=None):
        end(self, logs)
        ended.append(self)

    monkeypatch.setattr(ks.callbacks.DivergenceMonitor, "on_train_end", on_train_end)
    return ended


def build(config, folder):
    """Builds the site of the file `config` into `folder`; returns the finished process."""
    command = [sys.executable, "-c", BUILD, str(config), str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    for needed in ("material", "mkdocstrings_handlers.python"):
        if importlib.util.find_spec(needed.partition(".")[0]) is None:
            pytest.skip("the site needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
