"""What `DivergenceMonitor` measures in every epoch: health of the embeddings, and standard errors of AUC and EER."""

from keras_siamese import verification
from keras_siamese.diagnosis.facts import embeddings
from keras_siamese.diagnosis.facts.verification import standard_errors, widening

HEALTH = ("spread", "uniformity", "alignment", "effective_rank", "d_prime", "purity")  # every epoch


def health_of(scored):
    """What `DivergenceMonitor` keeps of the embeddings every epoch: `HEALTH` by name, NaN where it is not known."""
    z, trials = scored.embeddings, scored.trials
    genuine = trials.same
    found = dict.fromkeys(HEALTH, float("nan"))
    found |= {
        "spread": embeddings.spread(z),
        "uniformity": embeddings.uniformity(z),
        "effective_rank": embeddings.effective_rank(z),
    }
    found["alignment"] = embeddings.alignment(z, trials.left[genuine], trials.right[genuine])
    found["d_prime"] = verification.d_prime(scored.same, scored.scores)
    if trials.identities is not None and len(z) > 12:
        found["purity"] = embeddings.purity(z, trials.identities, permutations=2)[0]
    return found


def quick_errors(scored):
    """Standard errors of AUC and EER for every epoch: over identities, where they are not known widened for them."""
    found = standard_errors(scored.same, scored.scores, *scored.trials.pair_identities)
    return {name: error * widening(scored.trials) for name, error in found.items()}
