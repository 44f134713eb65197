"""The command line: `keras-siamese demo [--output DIR] [--seed N]`."""

import argparse
import sys
from pathlib import Path

from keras_siamese._version import __version__


def main(arguments=None):
    """Runs the command in `arguments` (default: those of the process); returns its exit status."""
    parser = argparse.ArgumentParser(prog="keras-siamese", description="Siamese (verification) networks for Keras 3.")
    parser.add_argument("--version", action="version", version=f"keras-siamese {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser("demo", help="train a network that goes wrong, name the cause, repair it; two minutes")
    demo.add_argument("--output", type=Path, default=Path("siamese-demo"), help="folder for the files it writes")
    demo.add_argument("--seed", type=int, default=0, help="of the data, the weights and the pairs")
    options = parser.parse_args(arguments)
    # Imported only now, so that --help and --version answer at once.
    from keras_siamese import demo as demonstration

    try:
        demonstration.run(options.output, options.seed)
    except (ValueError, ImportError) as error:
        print(f"keras-siamese {options.command}: {error}", file=sys.stderr)
        return 2
    return 0
