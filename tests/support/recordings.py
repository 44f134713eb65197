"""Records the runs that tests/diagnosis/recorded holds, which tests judge again without training.

`runs.json` has the facts of one run of each cause, and of one healthy run, of the fault benchmark; `<name>.json` are
whole reports of the planted runs of `plantings`.

    KERAS_BACKEND=torch python -m tests.support.recordings
"""

import gzip
import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "diagnosis" / "recorded"
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "results" / "faults_test.jsonl.gz"
REPORTS = ("control", "margin", "memorising")


def benchmark_runs():
    """`{name: facts}`: for each cause the first run that it was planted in and named in first, and a healthy run."""
    from keras_siamese.diagnosis import causes
    from keras_siamese.diagnosis.facts.table import Facts

    found = {}
    for line in gzip.decompress(BENCHMARK.read_bytes()).decode().splitlines():
        run = json.loads(line)
        # The benchmark files it under what was its cause before this one existed.
        name = {"frozen random encoder": "frozen_part"}.get(run["dose"], run["name"])
        if run["facts"] is None or name in found or (run["kind"] == "control" and name != "healthy"):
            continue
        findings, _ = causes.examine(Facts(run["facts"]["numbers"], run["facts"]["words"]))
        if [finding.cause for finding in findings[:1]] == ([] if name == "healthy" else [name]):
            found[name] = {part: run["facts"][part] for part in ("numbers", "words")}
    return found


def write():
    from tests.support import plantings

    FOLDER.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in sorted(benchmark_runs().items())]
    (FOLDER / "runs.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    for name in REPORTS:
        report = plantings.run(**plantings.FAULTS.get(name, {})).diagnosis.to_dict()
        (FOLDER / f"{name}.json").write_text(json.dumps(report, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
