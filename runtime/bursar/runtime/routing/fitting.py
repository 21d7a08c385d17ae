"""Fits the built-in classifier to labels: which n-grams are known, what they weigh, how sure that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bursar.budget.errors import UsageError
from bursar.runtime.routing.labels import Label
from bursar.runtime.routing.ngrams import ngrams
from bursar.runtime.routing.trained import Floats, Vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # type: ignore[import-untyped]  # it comes without types

__all__ = ["fit_weights", "learn_vocabulary"]

KEYS_MAX = 2**16

KNOWN_QUANTILE = 0.05
"""A text of which less is known than of all but so many of those trained on is of another kind."""

KNOWN_MIN, KNOWN_MIN_MOST = 0.5, 0.9
"""Between these: half of a text says little, and a misspelt word makes it none of another kind."""

INVERSE_REGULARISATION = 10.0
FOLDS = 3


def learn_vocabulary(labels: Sequence[Label]) -> tuple[Vocabulary, float]:
    """The n-grams of more than one text, at most the most frequent KEYS_MAX; and how much of a text must be known.

    An n-gram is known of a training text only where two others have it: so each is judged as a new one will be.
    Raises UsageError where no texts have anything in common.
    """
    texts = [ngrams(label.text)[0] for label in labels]
    keys, counts = np.unique(np.concatenate(texts), return_counts=True)
    kept = np.sort(np.lexsort((keys, -counts))[:KEYS_MAX])
    kept = kept[counts[kept] > 1]
    keys, counts = keys[kept], counts[kept]
    if not len(keys):
        raise UsageError("not enough evidence: no two texts have a word in common", next_step="label more requests")
    idf = np.log((1 + len(texts)) / (1 + counts)) + 1
    of_others = keys[counts > 2]
    known = [float(np.isin(text, of_others, assume_unique=True).mean()) for text in texts if len(text)]
    known_min = np.clip(np.quantile(known, KNOWN_QUANTILE), KNOWN_MIN, KNOWN_MIN_MOST)
    return Vocabulary(keys=keys, idf=idf.astype(np.float32)), float(known_min)


def fit_weights(
    vocabulary: Vocabulary, labels: Sequence[Label], tiers: Sequence[str], seed: int
) -> tuple[Floats, NDArray[np.float64]]:
    """A row of weights for each key and a bias, with a column for each tier.

    Their probabilities are calibrated by one temperature, found on folds that a model had not seen. Raises UsageError
    where scikit-learn is missing.
    """
    try:
        from sklearn.calibration import CalibratedClassifierCV  # type: ignore[import-untyped]  # without types
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # without types
        from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]  # without types
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # without types
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}", next_step="pip install 'bursar[routing]'") from error
    # A temperature is fitted to classes numbered from 0 without a gap; other numbers give a wrong one without a word.
    present, classes = np.unique([tiers.index(label.tier) for label in labels], return_inverse=True)
    model = CalibratedClassifierCV(
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, tol=1e-3),
        method="temperature",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        ensemble=False,
    )
    with threadpool_limits(1):  # several would wait for each other more than work, and sum in an order of their own
        model.fit(_matrix(vocabulary, labels), classes)
    [fitted] = model.calibrated_classifiers_
    coefficients, intercepts = _by_class(fitted.estimator)
    scale = fitted.calibrators[0].beta_
    weights = np.zeros((len(vocabulary.keys), len(tiers)), dtype=np.float32)
    bias = np.full(len(tiers), -np.inf)
    weights[:, present] = scale * coefficients.T
    bias[present] = scale * intercepts
    return weights, bias


def _matrix(vocabulary: Vocabulary, labels: Sequence[Label]) -> csr_array:
    from scipy.sparse import csr_array

    weighed = [vocabulary.weigh(label.text) for label in labels]
    places, values = np.concatenate([row[0] for row in weighed]), np.concatenate([row[1] for row in weighed])
    ends = np.cumsum([0, *(len(row[0]) for row in weighed)])
    return csr_array((values, places, ends), shape=(len(weighed), len(vocabulary.keys)))


def _by_class(model: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coefficients and intercepts. Of two classes scikit-learn keeps one's score: the other's is its negative."""
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) > 2:
        return coefficients, intercepts
    return np.vstack([-coefficients, coefficients]), np.append(-intercepts, intercepts)
