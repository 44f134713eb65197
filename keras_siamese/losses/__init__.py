"""Losses: pairs (`ContrastiveLoss`, `WeightedBinaryCrossentropy`) and triplets (`TripletLoss`)."""

from keras_siamese.losses.base import SiameseLoss
from keras_siamese.losses.pairs import ContrastiveLoss, PairLoss, WeightedBinaryCrossentropy
from keras_siamese.losses.triplets import TripletLoss

__all__ = ["ContrastiveLoss", "PairLoss", "SiameseLoss", "TripletLoss", "WeightedBinaryCrossentropy"]
