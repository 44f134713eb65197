"""Losses for pairs, triplets, whole batches of embeddings, and cosines to class weights (proxies).

The examples of the classes use ``from keras import ops``.
"""

from keras_siamese.losses.base import SiameseLoss
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
from keras_siamese.losses.batch.ranking import FastAPLoss, HistogramLoss, SmoothAPLoss
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
from keras_siamese.losses.batch.triplets import BatchTripletLoss, PNLoss, TripletHardLoss, TripletSemiHardLoss
from keras_siamese.losses.batch.views import BarlowTwinsLoss, MultipleNegativesRankingLoss, SigLIPLoss, VICRegLoss
from keras_siamese.losses.matryoshka import MatryoshkaLoss
from keras_siamese.losses.pairs import (
    ContrastiveLoss,
    MarginLoss,
    OnlineContrastiveLoss,
    PairLoss,
    WeightedBinaryCrossentropy,
)
from keras_siamese.losses.proxies.angular import (
    ArcFaceLoss,
    CosFaceLoss,
    NormalizedSoftmaxLoss,
    SphereFaceLoss,
    SubCenterArcFaceLoss,
)
from keras_siamese.losses.proxies.base import ProxyLoss
from keras_siamese.losses.proxies.neighbours import ProxyAnchorLoss, ProxyNCALoss, SoftTripleLoss
from keras_siamese.losses.triplets import TripletLoss

__all__ = ["AngularLoss", "ArcFaceLoss"]
__all__ += ["BarlowTwinsLoss", "BatchContrastiveLoss", "BatchLoss", "BatchMarginLoss", "BatchTripletLoss"]
__all__ += ["CircleLoss", "ContrastiveLoss", "CosFaceLoss", "FastAPLoss", "GeneralizedLiftedLoss", "HistogramLoss"]
__all__ += ["IntraPairVarianceLoss", "LiftedStructLoss"]
__all__ += ["MarginLoss", "MatryoshkaLoss", "MultiSimilarityLoss", "MultipleNegativesRankingLoss"]
__all__ += ["NCALoss", "NTXentLoss", "NormalizedSoftmaxLoss", "NpairsLoss", "NpairsMultilabelLoss"]
__all__ += ["OnlineContrastiveLoss", "PNLoss", "PairLoss", "ProxyAnchorLoss", "ProxyLoss", "ProxyNCALoss"]
__all__ += ["RankedListLoss"]
__all__ += [
    "SNRContrastiveLoss",
    "SiameseLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SoftNearestNeighborLoss",
    "SoftTripleLoss",
]
__all__ += ["SphereFaceLoss", "SubCenterArcFaceLoss", "SupConLoss"]
__all__ += ["ThresholdConsistentMarginLoss", "TripletHardLoss", "TripletLoss", "TripletSemiHardLoss"]
__all__ += ["TupletMarginLoss", "VICRegLoss", "WeightedBinaryCrossentropy"]
