"""Does the diagnosis name the planted fault, and raise no alarm on healthy runs?

Trains small siamese networks with a planted fault in each, or two, and healthy runs beside them. Then it diagnoses each
run, applies the advice, and trains the repaired run. Thresholds are chosen on the base programs of the tuning half and
frozen; the figures are those of the test half. See `planted/`.

    KERAS_SIAMESE_DATA=DIR python benchmarks/faults.py --half test --seeds 10         # hours; resumes where it stopped
    … python benchmarks/faults.py --half test --seeds 10 --part 0/2 &                 # half of the runs; 1/2: the rest
    … python benchmarks/faults.py --half test --cause margin --seeds 3                # one cause
    … python benchmarks/faults.py --half test --base text-head --few --seeds 2        # a first look at a base program
    … python benchmarks/faults.py --half test --kind pair --seeds 3                   # two faults at once
    … python benchmarks/faults.py --half test --seeds 1 --confirm                     # tests suspects by experiments
    … python benchmarks/faults.py --half test --repair --seeds 3                      # trains with the first advice
    … python benchmarks/faults.py --half test --restore --seeds 1                     # ks.repair trains the programs
    python benchmarks/faults.py --half test --judge                                   # figures of the recorded runs
    python benchmarks/faults.py --toy                                                 # seconds; writes nothing

DIR contains `fashion_mnist_small.npz`; without it the garments are left out. Each run is one line of
`results/faults_HALF.jsonl`. `--judge` compresses this file.
"""

import argparse
import gzip
import json
import os
import sys
import traceback
from pathlib import Path

import measure


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="one backend; torch is the fastest for such small steps")
    parser.add_argument("--half", choices=("tuning", "test"), default="test")
    parser.add_argument("--cause", action="append", help="only this cause's plantings; may be repeated")
    parser.add_argument("--base", action="append", help="only this base program; may be repeated")
    parser.add_argument(
        "--kind", action="append", choices=("control", "fault", "pair"), help="only these; the healthy runs are added"
    )
    parser.add_argument("--few", action="store_true", help="one variant of each fault, and six kinds of healthy runs")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 … n − 1 of each planting and control")
    parser.add_argument("--part", default="0/1", help="i/n: run each n-th run, starting with the i-th")
    parser.add_argument("--repair", action="store_true", help="train the recorded faulty runs again with their advice")
    parser.add_argument("--confirm", action="store_true", help="test the suspects of each run by experiments, too")
    parser.add_argument("--restore", action="store_true", help="let ks.repair train the recorded faulty programs")
    parser.add_argument("--judge", action="store_true", help="compute the figures of the recorded runs into results/")
    parser.add_argument("--toy", action="store_true", help="five runs of a few steps, nothing written")
    return parser.parse_args()


def main():
    options = arguments()
    os.environ["KERAS_BACKEND"] = options.backends
    from planted import judging, records

    if options.toy:
        toy(options)
    elif options.judge:
        runs = read(options.half)
        about = measure.surroundings("torch", "scikit-learn")
        command = f"python benchmarks/faults.py --half {options.half} --judge"
        found = {"surroundings": about, "command": command, **judging.judged(runs)}
        pack(options.half, runs)
        print(measure.write(f"faults_{options.half}", found))
    else:
        part, parts = map(int, options.part.split("/"))
        repairs = restored_of if options.restore else repairs_of
        work = repairs(options) if options.repair or options.restore else jobs_of(options)
        known = {judging.key_of(one) for one in read(options.half) if "tests" in one or not options.confirm}
        for place, (job, recipe) in enumerate(work):
            if place % parts == part and job not in known:
                train(job, recipe, options.half, records, options.confirm)


def train(job, recipe, half, records, with_tests):
    """Trains and records one run. If it fails, prints the traceback, so that the other runs go on."""
    try:
        is_restored = job[1] == "restored"
        record = records.restored_record_of(job, recipe) if is_restored else records.record_of(job, recipe, with_tests)
    except Exception:
        print(f"FAILED {job}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return
    with path_of(half).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"{record['seconds']:5.1f} s  outcome {record['outcome']:.3f}  {' · '.join(map(str, job))}", flush=True)


def bases_of(half):
    from planted import recipes

    bases = recipes.TUNING if half == "tuning" else recipes.TEST
    return bases if os.environ.get("KERAS_SIAMESE_DATA") else [base for base in bases if "garments" not in base]


def jobs_of(options):
    from planted import records

    bases = [base for base in bases_of(options.half) if not options.base or base in options.base]
    kinds = options.kind or records.KINDS
    for job in records.jobs(bases, range(options.seeds), kinds, options.cause, options.few):
        yield job, records.recipe_of(job)


def repairs_of(options):
    """Yields the recorded runs with a harmful fault, each with the recipe as its first finding changes it."""
    from planted import judging, records

    runs = read(options.half)
    kept = {key for key, kill in judging.killed(runs).items() if kill[0]}
    for record in sorted(runs, key=lambda one: one["seed"]):
        if record["kind"] != "fault" or judging.plant_of(record) not in kept or record["seed"] >= options.seeds:
            continue
        findings = judging.named_by(record) or []
        if findings and findings[0].apply is not None and (not options.cause or record["name"] in options.cause):
            base, _, *rest = judging.key_of(record)
            yield (base, "repair", *rest), findings[0].apply(records.recipe_of(judging.key_of(record)))


def restored_of(options):
    """Yields the recorded runs with a harmful fault that training can repair, with their own recipe."""
    from planted import judging, records

    runs = read(options.half)
    kept = {key for key, kill in judging.killed(runs).items() if kill[0]}
    for record in sorted(runs, key=lambda one: one["seed"]):
        is_chosen = record["seed"] < options.seeds and (not options.cause or record["name"] in options.cause)
        if (
            record["kind"] == "fault"
            and judging.plant_of(record) in kept
            and is_chosen
            and judging.is_repairable(record)
        ):
            base, kind, *rest = judging.key_of(record)
            yield (base, "restored", *rest), records.recipe_of((base, kind, *rest))


def path_of(half):
    measure.RESULTS.mkdir(exist_ok=True)
    return measure.RESULTS / f"faults_{half}.jsonl"


def read(half):
    """Returns the recorded runs: those in the compressed file, and those added since."""
    lines = []
    packed = path_of(half).with_suffix(".jsonl.gz")
    if packed.exists():
        lines += gzip.decompress(packed.read_bytes()).decode().splitlines()
    if path_of(half).exists():
        lines += path_of(half).read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the last line may be incomplete if the process was killed
            continue
        found[tuple(record[name] for name in ("base", "kind", "name", "dose", "seed"))] = record
    return list(found.values())


def pack(half, runs):
    """Writes all runs into one compressed file. This file is in the repository."""
    text = "".join(json.dumps(run, separators=(",", ":")) + "\n" for run in runs)
    path_of(half).with_suffix(".jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    path_of(half).unlink(missing_ok=True)


def toy(options):
    from planted import judging, plantings, recipes, records

    small = {"epochs": 2, "batches": 2, "pairs_drawn": 200}
    runs = []
    for base, kind, name, dose in (
        ("blobs-contrastive", "control", "healthy", ""),
        ("blobs-contrastive", "fault", "margin", "× .01"),
        ("blobs-head", "fault", "nan_gradient", "root of 0"),
        ("tokens-arcface", "fault", "learning_rate", "× 100"),
        ("text-supcon", "pair", "label_noise + leakage", "40 % + same images"),
    ):
        planting = plantings.planting_of(kind, name, dose)
        recipe = planting({**recipes.BASES[base], **small})
        runs.append(records.record_of((base, kind, name, dose, 0), recipe, with_tests=kind == "fault"))
    found = judging.judged(runs)
    named = [[finding.cause for finding in judging.named_by(run)] for run in runs]
    print(f"{options.backends}: {len(runs)} runs, {found['faults']} harmful plantings; named {named}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
