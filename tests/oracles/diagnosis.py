"""Slow, obvious loops to compare the flag, the draw of pairs and the standard errors with.

None calls the function that it is an oracle for; a test beside its use shows that each rejects a broken variant.
"""

import functools
import itertools
import math

# --- the flag


def mann_kendall(values, direction):
    """Share of all orders of `values` that trend at least as much in `direction` as the order that came."""
    return share_of_orders(tuple(float(value) for value in values), direction)


@functools.cache
def share_of_orders(values, direction):
    observed = concordance(values, direction)
    orders = list(itertools.permutations(values))
    return sum(concordance(order, direction) >= observed for order in orders) / len(orders)


def concordance(values, direction):
    total = 0
    for earlier, later in itertools.combinations(values, 2):
        rises, falls = later > earlier, later < earlier
        total += (rises - falls) if direction == "rising" else (falls - rises)
    return total


def flagged_epochs(loss, auc, eer, pairs, auc_se=None, eer_se=None, target_eer=None, epochs=None, skip=()):
    """Epochs that diagnosis.md flags, looked at one by one; `skip` names clauses to leave out, for a broken variant."""
    epochs = len(loss) if epochs is None else epochs
    if pairs < 100 and "pairs" not in skip:
        return []
    warmup = 0 if "warmup" in skip else epochs // 10
    known = [t for t in range(len(loss)) if not any(math.isnan(curve[t]) for curve in (loss, auc, eer))]
    known = [t for t in known if t >= warmup]
    diverging = [
        len(known[: place + 1]) >= 4
        and is_diverging(known[place - 3 : place + 1], loss, auc, eer, pairs, auc_se, eer_se, target_eer, skip)
        for place in range(len(known))
    ]
    if "consecutive" in skip:
        return [t for t, now in zip(known, diverging, strict=True) if now]
    return [t for place, t in enumerate(known) if diverging[place] and place > 0 and diverging[place - 1]]


def is_diverging(window, loss, auc, eer, pairs, auc_se, eer_se, target_eer, skip):
    last = window[-1]
    largest = max(abs(value) for value in loss[: last + 1] if not math.isnan(value))
    if eer[last] < 0.02 and "good" not in skip:
        return False
    if abs(loss[window[0]]) <= largest / 1000 and "floor" not in skip:
        return False
    if mann_kendall([loss[t] for t in window], "falling") >= 0.05 and "loss trend" not in skip:
        return False
    if (loss[window[0]] - loss[last]) / abs(loss[window[0]]) < 0.05 and "loss drop" not in skip:
        return False
    if mann_kendall([auc[t] for t in window], "rising") < 0.2 and "auc trend" not in skip:
        return False
    if mann_kendall([eer[t] for t in window], "falling") < 0.2 and "eer trend" not in skip:
        return False
    errors = {t: (error(auc[t], pairs, at(auc_se, t)), error(eer[t], pairs, at(eer_se, t))) for t in window}
    best_auc = max(value for value in auc[: last + 1] if not math.isnan(value))
    best_eer = min(value for value in eer[: last + 1] if not math.isnan(value))
    looked_at = window[-1:] if "throughout" in skip else window
    return "badly" in skip or any(
        (
            all(auc[t] < 0.5 + 2.326 * errors[t][0] for t in looked_at),
            target_eer is not None and all(eer[t] > target_eer for t in looked_at),
            all(best_auc - auc[t] > 2 * errors[t][0] for t in looked_at),
            all(eer[t] - best_eer > 2 * errors[t][1] for t in looked_at),
        )
    )


def at(errors, t):
    if errors is None or isinstance(errors, float):
        return errors
    return errors[t]


def error(figure, pairs, given):
    independent = math.sqrt(figure * (1 - figure) / (0.75 * pairs))
    if given is None or math.isnan(given):
        given = 3.6 * independent
    return max(given, independent, 1e-9)


# --- comparisons


def pairs_of(codes):
    """(genuine, impostor) sets of all pairs (i, j), i < j."""
    genuine, impostor = set(), set()
    for i, j in itertools.combinations(range(len(codes)), 2):
        (genuine if codes[i] == codes[j] else impostor).add((i, j))
    return genuine, impostor


# --- standard errors


def auc_error(same, scores, left, right, step=1e-4):
    """√Σ D_k², D_k by how much the weighted AUC moves when identity k weighs a little more, then a little less."""
    total = 0.0
    for k in sorted(set(left) | set(right)):
        moved = []
        for weight in (1 + step, 1 - step):
            of_identity = {other: weight if other == k else 1.0 for other in [*left, *right]}
            weights = [
                of_identity[a] if a == b else of_identity[a] * of_identity[b] for a, b in zip(left, right, strict=True)
            ]
            moved.append(weighted_auc(same, scores, weights))
        total += ((moved[0] - moved[1]) / (2 * step)) ** 2
    return math.sqrt(total)


def weighted_auc(same, scores, weights):
    genuine = [(score, weight) for is_same, score, weight in zip(same, scores, weights, strict=True) if is_same]
    impostor = [(score, weight) for is_same, score, weight in zip(same, scores, weights, strict=True) if not is_same]
    wins = sum(w * v * ((g > i) + 0.5 * (g == i)) for g, w in genuine for i, v in impostor)
    return wins / (sum(w for _, w in genuine) * sum(v for _, v in impostor))
