"""Which limits of the diagnosis matter: what changes if one of them is half or twice as large?

Judges the recorded runs of `faults.py` again, from their facts and curves, with one entry of
`keras_siamese/diagnosis/limits.py` changed at a time. Nothing is trained. See `planted/varied.py`.

    python benchmarks/sensitivity.py             # a few minutes; writes results/sensitivity.json
    python benchmarks/sensitivity.py --toy       # seconds; writes nothing
"""

import argparse
import os
import sys
from pathlib import Path

import faults
import measure

HALVES = ("tuning", "test")
TOY = ("POINT", "SIGNIFICANT", "FLAT")  # of a cause, of the flag, of a measurement


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="one backend; it computes nothing here")
    parser.add_argument("--half", choices=HALVES, action="append", help="only this half; by default both")
    parser.add_argument("--toy", action="store_true", help="three limits on a part of the tuning half")
    return parser.parse_args()


def main():
    options = arguments()
    os.environ["KERAS_BACKEND"] = options.backends
    from planted import varied

    from keras_siamese.diagnosis import limits

    halves = ("tuning",) if options.toy else options.half or HALVES
    names = TOY if options.toy else tuple(limits.TABLE)
    found = {"halves": {}, "limits": {name: described(limits.TABLE[name]) for name in names}}
    for half in halves:
        records = faults.read(half)
        runs = varied.Runs(records[::4] if options.toy else records)
        rows = {name: varied.varied(runs, name) for name in names}
        sizes = {"faults": len(runs.faults), "controls": len(runs.controls)}
        found["halves"][half] = {**sizes, "as_it_is": runs.counts(), "varied": rows}
    if options.toy:
        print(f"{options.backends}: {len(names)} limits; {found['halves']['tuning']['as_it_is']}")
        return
    about = measure.surroundings("scikit-learn", "scipy")
    print(measure.write("sensitivity", {"surroundings": about, "command": "python benchmarks/sensitivity.py", **found}))


def described(limit):
    return {"value": float(limit), "unit": limit.unit, "origin": limit.origin, "used_by": list(limit.used_by)}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
