"""The command line: `keras-siamese demo`, `evaluate SCORES.csv` and `diagnose MODEL.keras --data FILE.npz`."""

import argparse
import json
import sys
from pathlib import Path

from keras_siamese._version import __version__


def main(arguments=None):
    """Runs the command in `arguments` (default: those of the process); returns its exit status.

    0 is fine, 2 for input that cannot be used, 1 for a diagnosis that found something (`run_diagnose`).
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
    add_diagnose(commands)
    return top


def add_diagnose(commands):
    text = "whether a trained model verifies, whether its run diverged, and why"
    status = "Exit status: 0 if nothing was found, 1 if a finding is a warning or an error, 2 if input cannot be used."
    diagnose = commands.add_parser("diagnose", help=text, description=text, epilog=status)
    diagnose.add_argument(
        "model", metavar="MODEL.keras", help="siamese network, encoder or Verifier, as saved by Keras"
    )
    held_out = "held-out samples: .npz with x and labels, the identities; or left, right and same (1 or 0)"
    diagnose.add_argument("--data", required=True, metavar="FILE.npz", help=held_out)
    diagnose.add_argument("--train", metavar="FILE.npz", help="training samples: .npz with x and labels")
    log = "curves of the run: the log of DivergenceMonitor(log=…), or the CSV file of CSVLogger behind a monitor"
    diagnose.add_argument("--history", metavar="LOG", help=log)
    diagnose.add_argument(
        "--threshold", type=float, help="score (−distance, or probability) from which you accept a pair"
    )
    diagnose.add_argument("--target-eer", type=float, help="EER that you want, in (0, 1)")
    label = "the value in `same` that means the same"
    diagnose.add_argument("--similar-label", type=int, choices=(0, 1), default=1, help=label)
    diagnose.add_argument("--json", type=Path, metavar="FILE", help="write the diagnosis there too")
    diagnose.add_argument("--html", type=Path, metavar="FILE", help="write the report there (extra `report`)")
    diagnose.set_defaults(run=run_diagnose)


# What a command needs is imported by it, so that --help and --version answer at once.


def run_demo(options):
    from keras_siamese import demo

    demo.run(options.output, options.seed)
    return 0


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
    return 0


def run_diagnose(options):
    """Status 1 if a finding is a warning or an error; a run that diverged and did not recover always has one."""
    from keras_siamese._checks import check_installed, check_writable
    from keras_siamese.diagnosis import diagnose
    from keras_siamese.diagnosis.files import read_model, read_samples

    for name in ("json", "html"):
        if getattr(options, name) is not None:
            check_writable(f"--{name}", getattr(options, name))
    for module in ("matplotlib", "jinja2") if options.html is not None else ():
        check_installed(module, "report")
    saved = read_model(options.model)
    if saved.note is not None:
        print(f"keras-siamese diagnose: {saved.note}", file=sys.stderr)
    diagnosis = diagnose(
        saved.model,
        validation=read_samples(options.data),
        train=None if options.train is None else read_samples(options.train, pairs=False),
        history=options.history,
        threshold=saved.threshold if options.threshold is None else options.threshold,
        target_eer=options.target_eer,
        similar_label=options.similar_label,
    )
    print(diagnosis)
    if options.json is not None:
        diagnosis.to_json(options.json)
    if options.html is not None:
        diagnosis.to_html(options.html)
    return int(any(finding.severity in ("warning", "error") for finding in diagnosis.findings))
