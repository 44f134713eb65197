"""Data: splits that share no identity, and batches that depend only on `(seed, epoch, index)`.

    train, valid, test = split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)
    sequence = PairSequence(*train, batch_size=128, augment=image_augmenter(rotation_range=20))

Contract: `sources` defines what samples and labels may be; `sequence` is the base of all sequences. The other modules
use these two. Of the package, `data` imports only `_checks`, `_files`, `_frames`, `_replicas` and `neighbours`.
"""

from keras_siamese.data.augment import image_augmenter
from keras_siamese.data.balanced import BalancedBatchSequence
from keras_siamese.data.explicit import ExplicitPairs, LFWPairs, from_pairs, read_lfw_pairs
from keras_siamese.data.images import ImageFiles, ImageFolder, from_dataframe
from keras_siamese.data.leakage import LeakageReport, check_leakage
from keras_siamese.data.mining import HardNegatives, mine_hard_negatives
from keras_siamese.data.pairs import PairSequence
from keras_siamese.data.splits import IdentityKFold, split_identities
from keras_siamese.data.triplets import TripletSequence
from keras_siamese.data.views import EpochBatches
from keras_siamese.data.weights import pair_class_weights, sample_weights

__all__ = ["BalancedBatchSequence", "EpochBatches", "ExplicitPairs", "HardNegatives", "IdentityKFold"]
__all__ += ["ImageFiles", "ImageFolder"]
__all__ += ["LFWPairs", "LeakageReport", "PairSequence", "TripletSequence", "check_leakage"]
__all__ += [
    "from_dataframe",
    "from_pairs",
    "image_augmenter",
    "mine_hard_negatives",
    "pair_class_weights",
    "read_lfw_pairs",
]
__all__ += ["sample_weights", "split_identities"]
