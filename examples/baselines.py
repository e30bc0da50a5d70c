"""What a linear model over words and pairs of words (TF-IDF) reaches on an example's rows, split as they are.

Needs scikit-learn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Kind = Literal["classes", "labels", "numbers"]


def tf_idf(kind: Kind, training: Path, validation: Path) -> float:
    """Accuracy of classes, accuracy over labels, or R² of numbers, on `validation`.

    Features: words and pairs that stand in two texts at least, sublinear counts. Logistic regression with C = 10 for
    classes, with C = 1 for each label; ridge with alpha 1 for numbers. Raises: ImportError without scikit-learn.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    read, judged = _rows(training), _rows(validation)
    features = vectorizer.fit_transform([row["text"] for row in read])
    asked = vectorizer.transform([row["text"] for row in judged])
    if kind == "numbers":
        model = Ridge(alpha=1.0).fit(features, [row["value"] for row in read])
        return float(model.score(asked, [row["value"] for row in judged]))
    if kind == "labels":
        labels = MultiLabelBinarizer().fit([row["label"] for row in read])
        wanted = labels.transform([row["label"] for row in judged])
        several = OneVsRestClassifier(LogisticRegression(max_iter=1000))
        found = several.fit(features, labels.transform([row["label"] for row in read])).predict(asked)
        return float((found == wanted).mean())
    classes = LogisticRegression(C=10.0, max_iter=1000).fit(features, [row["label"] for row in read])
    return float(classes.score(asked, [row["label"] for row in judged]))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
