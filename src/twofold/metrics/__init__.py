"""How far to trust a split code: every number beside its chance level, with an interval or a spread."""

from twofold.metrics.classifier import Classifier, Judges, Regressor, Score, classifier, judges
from twofold.metrics.clustering import Clustering, Retrieval, clustering, matched_accuracy, retrieval_precision
from twofold.metrics.evidence import Evidence, evidence
from twofold.metrics.few_shot import FewShot, few_shot
from twofold.metrics.generation import Diversity, inception_score, intra_class_diversity
from twofold.metrics.leakage import leakage
from twofold.metrics.probe import FittedProbe, Probe, fit_probe, probe
from twofold.metrics.transport import wasserstein2

__all__ = [
    "Classifier",
    "Clustering",
    "Diversity",
    "Evidence",
    "FewShot",
    "FittedProbe",
    "Judges",
    "Probe",
    "Regressor",
    "Retrieval",
    "Score",
    "classifier",
    "clustering",
    "evidence",
    "few_shot",
    "fit_probe",
    "inception_score",
    "intra_class_diversity",
    "judges",
    "leakage",
    "matched_accuracy",
    "probe",
    "retrieval_precision",
    "wasserstein2",
]
