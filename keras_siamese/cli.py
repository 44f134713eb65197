"""The command line: `demo`, `watch script.py`, `evaluate SCORES.csv`, `diagnose MODEL.keras --data FILE`."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from keras_siamese import demo
from keras_siamese._checks import check_installed, check_writable
from keras_siamese._files import write_text
from keras_siamese._version import __version__
from keras_siamese.callbacks import launching
from keras_siamese.diagnosis import diagnose
from keras_siamese.diagnosis.files import read_model, read_samples
from keras_siamese.verification.counted import LIMIT, CountedScores, evaluate_file


def main(arguments=None):
    """Runs a command with the `arguments`, a list of strings; by default those of the process.

    Returns the exit status: 0 on success, 2 if the input cannot be used, and 1 if `diagnose` found a problem.
    """
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"keras-siamese {options.command}: {error}", file=sys.stderr)
        return 2


def parser():
    top = argparse.ArgumentParser(prog="keras-siamese", description="Siamese (verification) networks for Keras 3.")
    top.add_argument("--version", action="version", version=f"keras-siamese {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    text = "train a network that fails, diagnose the cause and repair it; takes two minutes"
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument("--output", type=Path, default=Path("siamese-demo"), help="folder for the files that it writes")
    demo.add_argument("--seed", type=int, default=0, help="random seed for data, weights and pairs")
    demo.set_defaults(run=run_demo)
    add_watch(commands)
    add_evaluate(commands)
    add_diagnose(commands)
    return top


def add_watch(commands):
    text = "run a training script as it is, and diagnose each fit of a siamese model that has validation data"
    status = "The script computes and prints what it does without this command. The verdict goes to standard error. "
    status += "Exit status: that of the script; 2 if the script or the report cannot be used."
    command = commands.add_parser("watch", help=text, description=text, epilog=status)
    command.set_defaults(run=run_watch)
    report = "the report (extra `report`), and beside it the same as JSON; a second fit writes report-2.html, and so on"
    add = command.add_argument
    add("--report", type=Path, default=Path("siamese-report.html"), metavar="FILE", help=report)
    add("script", metavar="script.py", help="the script")
    add("arguments", nargs=argparse.REMAINDER, metavar="...", help="the arguments of the script")


def add_evaluate(commands):
    text = "compute verification figures, with confidence intervals, from the scores of any system"
    long = f"More than {LIMIT:,} pairs are counted in bins: the figures then have error bounds instead of intervals."
    command = commands.add_parser("evaluate", help=text, description=text, epilog=long)
    command.set_defaults(run=run_evaluate)
    columns = "CSV or Parquet file with the columns score and same (1 or 0), and optionally left and right, the "
    columns += "identities, from which the intervals are computed; - reads standard input"
    add = command.add_argument
    add("scores", metavar="SCORES.csv", help=columns)
    add("--far", type=float, nargs="+", default=[0.01, 0.001], help="false match rates at which the TAR is reported")
    add("--threshold", type=float, help="accept pairs from this score on; must have been chosen on other pairs")
    add("--distance", action="store_true", help="the scores are distances; thresholds are shown as −distance")
    add("--confidence", type=float, default=0.95, help="nominal coverage of the intervals")
    add("--seed", type=int, default=0, help="random seed for intervals and folds")
    add("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    add("--html", type=Path, metavar="FILE", help="write a page with table and curves to this file (extra `report`)")


def add_diagnose(commands):
    text = "check whether a trained model verifies well, whether its training diverged, and why"
    status = "Exit status: 0 if nothing was found, 1 if a finding is a warning or an error, 2 if input cannot be used."
    command = commands.add_parser("diagnose", help=text, description=text, epilog=status)
    command.set_defaults(run=run_diagnose)
    held_out = "held-out samples: .npz file with x and labels (the identities), or with left, right and same (1 or 0)"
    log = "curves of the training: log of DivergenceMonitor(log=…), or CSV file of a CSVLogger placed after a monitor"
    label = "the value in `same` that means a genuine pair"
    add = command.add_argument
    add("model", metavar="MODEL.keras", help="siamese network, encoder or Verifier, saved by Keras")
    add("--data", required=True, metavar="FILE.npz", help=held_out)
    add("--train", metavar="FILE.npz", help="training samples: .npz file with x and labels")
    add("--history", metavar="LOG", help=log)
    add("--threshold", type=float, help="score (−distance or probability) from which on you accept pairs")
    add("--target-eer", type=float, help="the EER that you want to reach, in (0, 1)")
    add("--similar-label", type=int, choices=(0, 1), default=1, help=label)
    add("--json", type=Path, metavar="FILE", help="also write the diagnosis to this file")
    add("--html", type=Path, metavar="FILE", help="write the report to this file (extra `report`)")


def run_demo(options):
    demo.run(options.output, options.seed)
    return 0


def run_watch(options):
    """Runs the script in a Python of its own, in which Keras is not imported yet: the script chooses the backend."""
    if not os.path.exists(options.script):
        raise ValueError(f"{options.script} does not exist")
    check_writable("--report", options.report)
    root = str(Path(launching.__file__).parents[2])
    command = [sys.executable, launching.__file__, str(options.report), root, options.script, *options.arguments]
    if os.name == "posix":
        sys.stdout.flush(), sys.stderr.flush()
        os.execv(sys.executable, command)  # so that signals reach the script, and its exit status is ours
    return subprocess.call(command)


def check_outputs(options):
    """Raises if a file that the command is to write cannot be written."""
    for name in ("json", "html"):
        if getattr(options, name) is not None:
            check_writable(f"--{name}", getattr(options, name))


def run_evaluate(options):
    check_outputs(options)
    names = ("far", "threshold", "distance", "confidence", "seed")
    settings = {name: getattr(options, name) for name in names}
    with contextlib.redirect_stdout(sys.stderr):  # the progress bar
        report = evaluate_file(options.scores, progress=sys.stderr.isatty(), **settings)
    if options.html is not None and isinstance(report, CountedScores):
        pairs = report.histogram.genuines + report.histogram.impostors
        raise ValueError(f"`--html` needs all pairs in memory, at most {LIMIT:,}; {options.scores} has {pairs:,}")
    print(report)
    if options.json is not None:
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(options.json, text + "\n")
    if options.html is not None:
        report.to_html(options.html, f"Verification of {options.scores}")
    return 0


def run_diagnose(options):
    """Runs the diagnosis; the status is 1 if a finding is a warning or an error.

    A run that diverged and did not recover always has such a finding.
    """
    check_outputs(options)
    for module in ("matplotlib", "jinja2") if options.html is not None else ():
        check_installed(module, "report")
    saved = read_model(options.model)
    if saved.note is not None:
        print(f"keras-siamese diagnose: {saved.note}", file=sys.stderr)
    validation = read_samples(options.data)
    train = None if options.train is None else read_samples(options.train, pairs=False)
    threshold = saved.threshold if options.threshold is None else options.threshold
    given = {name: getattr(options, name) for name in ("history", "target_eer", "similar_label")}
    diagnosis = diagnose(saved.model, validation=validation, train=train, threshold=threshold, **given)
    print(diagnosis)
    if options.json is not None:
        diagnosis.to_json(options.json)
    if options.html is not None:
        diagnosis.to_html(options.html)
    return int(any(finding.severity in ("warning", "error") for finding in diagnosis.findings))
