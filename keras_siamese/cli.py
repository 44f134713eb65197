"""The command line: `keras-siamese demo` and `keras-siamese evaluate SCORES.csv`."""

import argparse
import json
import sys
from pathlib import Path

from keras_siamese._version import __version__


def main(arguments=None):
    """Runs the command in `arguments` (default: those of the process); returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"keras-siamese {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def parser():
    top = argparse.ArgumentParser(prog="keras-siamese", description="Siamese (verification) networks for Keras 3.")
    top.add_argument("--version", action="version", version=f"keras-siamese {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser("demo", help="train a network that goes wrong, name the cause, repair it; two minutes")
    demo.add_argument("--output", type=Path, default=Path("siamese-demo"), help="folder for the files it writes")
    demo.add_argument("--seed", type=int, default=0, help="of the data, the weights and the pairs")
    demo.set_defaults(run=run_demo)

    text = "verification figures, with intervals, of the scores of any system"
    evaluate = commands.add_parser("evaluate", help=text, description=text)
    columns = "CSV file with the columns score and same (1 or 0); left and right, the identities, bring the intervals"
    evaluate.add_argument("scores", metavar="SCORES.csv", help=columns + "; - is standard input")
    evaluate.add_argument("--far", type=float, nargs="+", default=[0.01, 0.001], help="false match rates for the TAR")
    evaluate.add_argument("--threshold", type=float, help="score from which a pair is accepted, chosen on other pairs")
    evaluate.add_argument(
        "--distance", action="store_true", help="the scores are distances; thresholds are shown as −distance"
    )
    evaluate.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals")
    evaluate.add_argument("--seed", type=int, default=0, help="of the intervals and the folds")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    evaluate.add_argument("--html", type=Path, metavar="FILE", help="write a page with the curves (extra `report`)")
    evaluate.set_defaults(run=run_evaluate)
    return top


# What a command needs is imported by it, so that --help and --version answer at once.


def run_demo(options):
    from keras_siamese import demo

    demo.run(options.output, options.seed)


def run_evaluate(options):
    from keras_siamese._checks import check_writable
    from keras_siamese.verification import evaluate, read_scores

    for name in ("json", "html"):
        if getattr(options, name) is not None:
            check_writable(f"--{name}", getattr(options, name))
    table = read_scores(options.scores)
    sign = -1.0 if options.distance else 1.0
    report = evaluate(
        table.same,
        sign * table.scores,
        far=options.far,
        threshold=None if options.threshold is None else sign * options.threshold,
        left=table.left,
        right=table.right,
        confidence=options.confidence,
        seed=options.seed,
    )
    print(report)
    if options.json is not None:
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.html is not None:
        report.to_html(options.html, f"Verification of {options.scores}")
