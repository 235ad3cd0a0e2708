"""Metrics of images, features, scores and latents, and extractors of features of images.

Metrics of sentences are in :mod:`lebm.metrics.text_likelihood`.

Example:
    >>> import torch
    >>> from lebm.metrics import FlatFeatures, maximum_mean_discrepancy
    >>> real, fake = torch.zeros(8, 1, 28, 28), torch.ones(8, 1, 28, 28)
    >>> features = FlatFeatures(size=4)
    >>> maximum_mean_discrepancy(features(real), features(fake), width=1.0)
    tensor(1.9993)
"""

from lebm.metrics.anomaly import anomaly_figures, lowest_average_precision, surprisal
from lebm.metrics.classification import classify, mutual_information, mutual_information_gap
from lebm.metrics.features import (
    DigitFeatures,
    FeatureExtractor,
    FeaturesUnavailableError,
    FlatFeatures,
    InceptionFeatures,
)
from lebm.metrics.frechet import FrechetDistance, frechet_distance, maximum_mean_discrepancy, neighbour_rows
from lebm.metrics.reconstruction import reconstruction_rows, squared_error_rows
from lebm.metrics.rows import NonFinite, RowCollector, finite_rows

__all__ = [
    "DigitFeatures",
    "FeatureExtractor",
    "FeaturesUnavailableError",
    "FlatFeatures",
    "FrechetDistance",
    "InceptionFeatures",
    "NonFinite",
    "RowCollector",
    "anomaly_figures",
    "classify",
    "finite_rows",
    "frechet_distance",
    "lowest_average_precision",
    "maximum_mean_discrepancy",
    "mutual_information",
    "mutual_information_gap",
    "neighbour_rows",
    "reconstruction_rows",
    "squared_error_rows",
    "surprisal",
]
