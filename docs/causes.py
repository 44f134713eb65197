"""Draws docs/causes/CAUSE.png, the pictures of the guide docs/loss_falls.md.

Each picture shows a run of the fault benchmark with a planted fault, and the healthy run of the same base program and
seed. The runs are those in benchmarks/results.

    python docs/causes.py
"""

import gzip
import json
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
RUNS = HERE.parent / "benchmarks" / "results" / "faults_test.jsonl.gz"
FAULTY, HEALTHY = "#d62728", "#7f7f7f"


def read():
    return [json.loads(line) for line in gzip.decompress(RUNS.read_bytes()).decode().splitlines()]


def strongest(runs, healthy):
    """Returns for each cause the most harmful run and the healthy run with the same base and seed."""
    found = {}
    for run in runs:
        if run["kind"] == "fault" and (run["base"], run["seed"]) in healthy and run["facts"]:
            beside = healthy[run["base"], run["seed"]]
            harm = abs(run["outcome"] - beside["outcome"]) if run["name"] != "leakage" else -final(run)
            if run["name"] not in found or harm > found[run["name"]][0]:
                found[run["name"]] = (harm, run, beside)
    return {name: pair[1:] for name, pair in found.items()}


def final(run):
    return run["history"]["eer"][-1]


def draw(run, healthy, path):
    figure = Figure(figsize=(7, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for one, colour, label in ((healthy, HEALTHY, "healthy"), (run, FAULTY, run["dose"] or run["name"])):
        epochs = range(1, len(one["history"]["loss"]) + 1)
        loss = one["history"]["loss"]
        left.plot(epochs, [value / loss[0] for value in loss], color=colour, label=label)
        right.plot(epochs, one["history"]["eer"], color=colour, label=label)
    left.set(xlabel="epoch", ylabel="training loss / first", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="held-out EER", ylim=(0, max(0.55, 1.05 * max(run["history"]["eer"]))))
    right.legend(frameon=False, fontsize="small", title=run["base"].replace("-", ", "), title_fontsize="small")
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    runs = read()
    healthy = {(r["base"], r["seed"]): r for r in runs if r["kind"] == "control" and r["name"] == "healthy"}
    (HERE / "causes").mkdir(exist_ok=True)
    for name, (run, beside) in strongest(runs, healthy).items():
        draw(run, beside, HERE / "causes" / f"{name}.png")
