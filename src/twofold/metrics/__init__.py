"""How far to trust a split code: every number beside its chance level, with an interval or a spread."""

from twofold.metrics.clustering import Clustering, Retrieval, clustering, matched_accuracy, retrieval_precision
from twofold.metrics.generation import Diversity, inception_score, intra_class_diversity
from twofold.metrics.leakage import leakage
from twofold.metrics.probe import FittedProbe, Probe, fit_probe, probe
from twofold.metrics.transport import wasserstein2

__all__ = [
    "Clustering",
    "Diversity",
    "FittedProbe",
    "Probe",
    "Retrieval",
    "clustering",
    "fit_probe",
    "inception_score",
    "intra_class_diversity",
    "leakage",
    "matched_accuracy",
    "probe",
    "retrieval_precision",
    "wasserstein2",
]
