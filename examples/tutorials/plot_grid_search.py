"""
A grid search on noisy labels
=============================

If all labels are noisy, so are those that parameters are chosen by.
``noisy_log_likelihood_scorer`` measures how likely the held-out observed
labels are, given the network and its noise. Here it chooses the candidate that
clean labels would choose.
"""

# %%
# Digits with 35 % wrong training labels. The plain network,
# ``noise_model=None``, belongs in every grid: if it wins, there is no noise
# that can be found. A search has many fits: each holds out three tenths of its
# rows once, which takes less time than the default for few rows, where every
# part of the rows is held out in turn.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X, y, test_size=0.4, stratify=y, random_state=0
)
y_observed = corrupt_labels(
    y, pair_transition(10, 0.35), exact=True, random_state=0
)

pipeline = make_pipeline(
    MinMaxScaler(),
    NoisyLabelClassifier(
        lr=0.01,
        max_epochs=15,
        early_stopping=True,
        validation_fraction=0.3,
        random_state=0,
    ),
)
grid = {
    "noisylabelclassifier__noise_model": [None, "s"],
    "noisylabelclassifier__hidden_layer_sizes": [(16,), (100,)],
}
search = GridSearchCV(
    pipeline,
    grid,
    scoring=noisy_log_likelihood_scorer,
    cv=StratifiedKFold(2, shuffle=True, random_state=0),
)
search.fit(X, y_observed)
chosen = {
    name.split("__")[1]: value for name, value in search.best_params_.items()
}
print(f"chosen: {chosen}")

# %%
# Was it a good choice?
# ---------------------
# Clean test labels, which no search would have, show how good each candidate
# is.

clean = [
    pipeline.set_params(**params).fit(X, y_observed).score(X_test, y_test)
    for params in search.cv_results_["params"]
]
candidates = search.cv_results_["params"]
for params, score, accuracy in zip(
    candidates, search.cv_results_["mean_test_score"], clean, strict=True
):
    short = {name.split("__")[1]: value for name, value in params.items()}
    print(
        f"{short!s:56} likelihood {score:.3f}, "
        f"clean test accuracy {accuracy:.3f}"
    )

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for noise_model, mark, colour in ((None, "s", "0.55"), ("s", "o", "#0072B2")):
    at = [
        i
        for i, params in enumerate(search.cv_results_["params"])
        if params["noisylabelclassifier__noise_model"] == noise_model
    ]
    axes.errorbar(
        search.cv_results_["mean_test_score"][at],
        np.array(clean)[at],
        xerr=search.cv_results_["std_test_score"][at],
        fmt=mark,
        color=colour,
        markersize=8,
        capsize=3,
        label="plain" if noise_model is None else "s-model",
    )
axes.set(
    xlabel="log-likelihood of held-out observed labels (bars: folds)",
    ylabel="accuracy on clean test labels",
    title="Chosen without a clean label",
)
axes.legend()
plt.show()
