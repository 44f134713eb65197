"""Batch losses: every pair or triplet of a batch, from identities `(batch,)` and embeddings `(batch, dim)`."""

from keras_siamese.losses.batch.angular import AngularLoss
from keras_siamese.losses.batch.base import BatchLoss
from keras_siamese.losses.batch.hinges import (
    BatchContrastiveLoss,
    BatchMarginLoss,
    IntraPairVarianceLoss,
    RankedListLoss,
    SNRContrastiveLoss,
    ThresholdConsistentMarginLoss,
)
from keras_siamese.losses.batch.npairs import NpairsLoss, NpairsMultilabelLoss
from keras_siamese.losses.batch.ranking import (
    FastAPLoss,
    HistogramLoss,
    SmoothAPLoss,
)
from keras_siamese.losses.batch.softmaxes import (
    CircleLoss,
    GeneralizedLiftedLoss,
    LiftedStructLoss,
    MultiSimilarityLoss,
    NCALoss,
    NTXentLoss,
    SoftNearestNeighborLoss,
    SupConLoss,
    TupletMarginLoss,
)
from keras_siamese.losses.batch.triplets import (
    BatchTripletLoss,
    PNLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
)
from keras_siamese.losses.batch.views import (
    BarlowTwinsLoss,
    MultipleNegativesRankingLoss,
    VICRegLoss,
)

__all__ = [
    "AngularLoss",
    "BarlowTwinsLoss",
    "BatchContrastiveLoss",
    "BatchLoss",
    "BatchMarginLoss",
    "BatchTripletLoss",
    "CircleLoss",
    "FastAPLoss",
    "GeneralizedLiftedLoss",
    "HistogramLoss",
    "IntraPairVarianceLoss",
    "LiftedStructLoss",
    "MultiSimilarityLoss",
    "MultipleNegativesRankingLoss",
    "NCALoss",
    "NTXentLoss",
    "NpairsLoss",
    "NpairsMultilabelLoss",
    "PNLoss",
    "RankedListLoss",
    "SNRContrastiveLoss",
    "SmoothAPLoss",
    "SoftNearestNeighborLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "TupletMarginLoss",
    "VICRegLoss",
]
