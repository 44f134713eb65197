"""Prints what comes of every unusual array, by room, function, argument and kind, and then the numbers of outcomes."""

import collections

from keras_siamese._tables import aligned
from tests.bad_inputs.test_coverage import ROOMS


def main():
    counts = collections.Counter()
    for room, cases in ROOMS.items():
        for case in cases.cases():
            verdict = cases.verdict(*case)
            counts[room, verdict] += 1
            print(room, *case, verdict, sep=" | ")
    kinds = sorted({verdict for _, verdict in counts})
    rows = [[room, *(str(counts[room, kind]) for kind in kinds)] for room in ROOMS]
    print("\n".join(aligned([["room", *kinds], *rows], right=range(1, len(kinds) + 1))))


if __name__ == "__main__":
    main()
