"""The command line: `demo`, `watch script.py`, `evaluate SCORES.csv`, `diagnose MODEL.keras`, `compare RUN.json …`."""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from keras_siamese import app, demo
from keras_siamese._checks import check_installed, check_writable
from keras_siamese._files import write_text
from keras_siamese._version import __version__
from keras_siamese.callbacks import launching
from keras_siamese.diagnosis import compare_runs, diagnose
from keras_siamese.diagnosis.files import read_model, read_samples
from keras_siamese.verification.counted import LIMIT, CountedScores, evaluate_file
from keras_siamese.verifier import Verifier


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
    add_completion(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    add_demo(commands)
    add_watch(commands)
    add_evaluate(commands)
    add_diagnose(commands)
    add_compare(commands)
    add_app(commands)
    for command in commands.choices.values():
        complete_paths(command)
    return top


def add_completion(top):
    """Adds `--print-completion bash`, which the package `shtab` makes from this parser."""
    text = "print the completion script for a shell: bash, zsh or tcsh"
    if importlib.util.find_spec("shtab"):
        import shtab

        shtab.add_argument_to(top, "--print-completion", help=text)
    else:
        top.add_argument(
            "--print-completion", metavar="SHELL", action=WithoutCompletion, help=f"{text} (extra `completion`)"
        )


def complete_paths(command):
    """Lets a shell complete the arguments of a command that are files or folders, after what the help calls them."""
    if importlib.util.find_spec("shtab"):
        import shtab

        for action in command._actions:
            shown = str(action.metavar or action.dest)
            if shown in ("FOLDER", "output"):
                action.complete = shtab.DIRECTORY
            elif "." in shown or shown in ("FILE", "LOG"):
                action.complete = shtab.FILE


class WithoutCompletion(argparse.Action):
    """Ends the program with the name of the extra."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f'{option_string} needs the package shtab: pip install "keras-siamese[completion]"')


def add_command(commands, name, text, run, example, note=""):
    """A command whose help ends with a note and an example; returns its parser."""
    end = f"{textwrap.fill(note, 78)}\n\nexample:\n  {example}".lstrip()
    layout = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(name, help=text, description=text, epilog=end, formatter_class=layout)
    command.set_defaults(run=run)
    return command


def add_demo(commands):
    text = "train a network that fails, diagnose the cause and repair it; takes two minutes"
    add = add_command(commands, "demo", text, run_demo, "keras-siamese demo --output demo").add_argument
    add("--output", type=Path, default=Path("siamese-demo"), help="folder for the files that it writes")
    add("--seed", type=int, default=0, help="random seed for data, weights and pairs")


def add_watch(commands):
    text = "run a training script as it is, and diagnose each fit of a siamese model that has validation data"
    status = "The script computes and prints what it does without this command. The verdict and the advice go to "
    status += "standard error. Options of this command stand before the script: what follows it is given to the "
    status += "script. Exit status: that of the script; 2 if the script or the report cannot be used. A training loop "
    status += "that does not call fit is not watched: see start, record and finish of DivergenceMonitor."
    example = "keras-siamese watch --report report.html train.py --epochs 20"
    report = (
        "the report (extra `report`), by default siamese-report.html, and beside it the same as JSON; a second fit "
    )
    report += "writes to the same name with -2, and so on"
    add = add_command(commands, "watch", text, run_watch, example, status).add_argument
    add("--report", type=Path, default=Path("siamese-report.html"), metavar="FILE", help=report)
    add("script", metavar="script.py", help="the script")
    add("arguments", nargs=argparse.REMAINDER, metavar="...", help="the arguments of the script")


def add_evaluate(commands):
    text = "compute verification figures, with confidence intervals, from the scores of any system"
    long = f"More than {LIMIT:,} pairs are counted in bins: the figures then have error bounds instead of intervals."
    example = "keras-siamese evaluate scores.csv --far 0.01 0.001 --html report.html --groups device"
    columns = "CSV or Parquet file with the columns score and same (1 or 0), and optionally left and right, the "
    columns += "identities, from which the intervals are computed; - reads standard input"
    add = add_command(commands, "evaluate", text, run_evaluate, example, long).add_argument
    add("scores", metavar="SCORES.csv", help=columns)
    add("--far", type=float, nargs="+", default=[0.01, 0.001], help="false match rates at which the TAR is reported")
    add("--threshold", type=float, help="accept pairs with at least this score, which was chosen on other pairs")
    add("--distance", action="store_true", help="the scores are distances; thresholds are shown as −distance")
    add("--confidence", type=float, default=0.95, help="nominal coverage of the intervals")
    add("--seed", type=int, default=0, help="random seed for intervals and folds")
    add("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    add("--html", type=Path, metavar="FILE", help="write a page with table and curves to this file (extra `report`)")
    groups = "column with the group of each pair, such as a device: a reader of the page can then choose a group"
    add("--groups", metavar="COLUMN", help=groups)


def add_diagnose(commands):
    text = "check whether a trained model verifies well, whether its training diverged, and why"
    status = "Exit status: 0 if nothing was found, 1 if a finding is a warning or an error or if the EER is above "
    status += "--target-eer (0.25), 2 if input cannot be used."
    example = "keras-siamese diagnose siamese.keras --data valid.npz --train train.npz --html report.html"
    held_out = "held-out samples: .npz file with x and labels (the identities), or with left, right and same (1 or 0)"
    log = "curves of the training: log of DivergenceMonitor(log=…), or CSV file of a CSVLogger placed after a monitor"
    label = "the value in `same` that means a genuine pair"
    add = add_command(commands, "diagnose", text, run_diagnose, example, status).add_argument
    add("model", metavar="MODEL.keras", help="siamese network, encoder or Verifier, saved by Keras")
    add("--data", required=True, metavar="FILE.npz", help=held_out)
    add("--train", metavar="FILE.npz", help="training samples: .npz file with x and labels")
    add("--history", metavar="LOG", help=log)
    add("--threshold", type=float, help="the lowest score (−distance or probability) of a pair that you accept")
    add("--target-eer", type=float, help="the EER that you want to reach, in (0, 1)")
    add("--similar-label", type=int, choices=(0, 1), default=1, help=label)
    add("--json", type=Path, metavar="FILE", help="also write the diagnosis to this file")
    add("--html", type=Path, metavar="FILE", help="write the report to this file (extra `report`)")


def add_compare(commands):
    text = "compare training runs by the JSON reports of their diagnoses: figures, causes, curves, settings that differ"
    status = "`keras-siamese diagnose --json`, `DivergenceMonitor(report=…)` and Diagnosis.to_json write such reports."
    example = "keras-siamese compare before.json after.json --html comparison.html"
    add = add_command(commands, "compare", text, run_compare, example, status).add_argument
    add("reports", nargs="+", metavar="RUN.json", help="at least two reports; the others are compared with the first")
    add("--html", type=Path, metavar="FILE", help="also write the comparison to this page (extra `report`)")


def add_app(commands):
    text = "try a verifier by hand in the browser: two samples, or one against a gallery (extra `app`)"
    note = "The page is served at 127.0.0.1 alone. Images are read as numbers from 0 to 255: if the network was "
    note += "trained on numbers from 0 to 1, pass --divide 255."
    example = "keras-siamese app verifier.keras --gallery people --divide 255"
    add = add_command(commands, "app", text, run_app, example, note).add_argument
    add("verifier", metavar="VERIFIER.keras", help="file of Verifier.save")
    gallery = "samples to search, in one folder for each identity: images, or .wav, .txt or .npy files; or the folder "
    add("--gallery", metavar="FOLDER", help=gallery + "of a StoredGallery")
    add("--kind", choices=("image", "sound", "text", "array"), help="what samples are; by default what the shape tells")
    add("--divide", type=float, default=1.0, help="by what images are divided, as in training; by default 1")
    add("--rate", type=int, help="samples of sounds in a second, as in training: others are refused")
    add("--port", type=int, help="by default the first free port from 7860 on")


def run_demo(options):
    demo.run(options.output, options.seed)
    return 0


def run_watch(options):
    """Runs the script in a Python of its own, in which Keras is not imported yet: the script chooses the backend."""
    if not os.path.isfile(options.script):
        is_there = os.path.exists(options.script)
        raise ValueError(f"{options.script} {'is not a file' if is_there else 'does not exist'}")
    check_page("--report", options.report)
    if any(one.split("=")[0] == "--report" for one in options.arguments):
        given = (
            f"--report after {options.script} is given to the script; the report of this command is {options.report}"
        )
        print(f"keras-siamese watch: {given}. To name it, put --report before the script", file=sys.stderr)
    root = str(Path(launching.__file__).parents[2])
    command = [sys.executable, launching.__file__, str(options.report), root, options.script, *options.arguments]
    if os.name == "posix":
        sys.stdout.flush(), sys.stderr.flush()
        os.execv(sys.executable, command)  # so that signals reach the script, and its exit status is ours
    return subprocess.call(command)


def check_outputs(options):
    """Raises if a file that the command is to write cannot be written."""
    if options.json is not None:
        check_writable("--json", options.json)
    if options.html is not None:
        check_page("--html", options.html)


def check_page(name, path):
    """Raises if the HTML page cannot be written to `path`, or would not be opened as one; `/dev/stdout` is none."""
    is_device = path.exists() and not path.is_file() and not path.is_dir()
    if path.suffix.lower() not in (".html", ".htm") and not path.is_dir() and not is_device:
        raise ValueError(f"`{name}` must be the path of a page, which ends with .html; got {str(path)!r}")
    check_writable(name, path)


@contextlib.contextmanager
def without_code(path):
    """Explain the error for a model with a Python lambda, whose code no command runs."""
    try:
        yield
    except ValueError as error:
        if not re.search("safe_mode=False|deserialization of a .?lambda", f"{error} {error.__cause__}", re.IGNORECASE):
            raise
        what = f"{path} holds a Lambda layer with Python code, and this command reads models in safe mode"
        how = "Replace the layer by keras_siamese.layers.DistanceLayer or a registered layer of your own and save the "
        how += "model again, or load it in Python and call keras_siamese.diagnose there"
        raise ValueError(f"{what}. {how}") from error


def run_evaluate(options):
    check_outputs(options)
    if options.groups is not None and options.html is None:
        raise ValueError("`--groups` is for the page. Pass `--html FILE` too")
    names = ("far", "threshold", "distance", "groups", "confidence", "seed")
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
        report.to_html(options.html, f"Verification of {options.scores}", groups=report.pairs.get("groups"))
    return 0


def run_diagnose(options):
    """Runs the diagnosis; the status is 1 if a finding is a warning or an error, or if the run verifies badly.

    A run that diverged and did not recover always has such a finding.
    """
    check_outputs(options)
    for module in ("matplotlib", "jinja2") if options.html is not None else ():
        check_installed(module, "report")
    with without_code(options.model):
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
    is_found = any(finding.severity in ("warning", "error") for finding in diagnosis.findings)
    return int(is_found or bool(diagnosis.facts.get("verifies_badly")))


def run_app(options):
    check_installed("gradio", "app")
    with without_code(options.verifier):
        verifier = Verifier.load(options.verifier)
    reading = {"kind": options.kind, "divide": options.divide, "rate": options.rate}
    gallery = None if options.gallery is None else app.enrolled(verifier, options.gallery, **reading)
    app.serve(verifier, gallery, **reading, port=options.port)
    return 0


def run_compare(options):
    if options.html is not None:
        check_page("--html", options.html)
    comparison = compare_runs(*options.reports)
    print(comparison)
    if options.html is not None:
        comparison.to_html(options.html)
    return 0
