"""
Successive halving and Optuna on noisy labels
=============================================

Large grids are searched faster by giving up on poor candidates early.
scikit-learn's ``HalvingGridSearchCV`` starts with few epochs and gives more of
them to the better half of the candidates. Optuna proposes candidates one after
the other. Both choose by the likelihood of held-out noisy labels.
"""

# %%
# Digits with 35 % wrong labels. The plain network, ``noise_model=None``, is a
# candidate too.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV, train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
y_observed = corrupt_labels(
    y, pair_transition(10, 0.35), exact=True, random_state=0
)

# %%
# The resource is the number of epochs. Four candidates begin with 5 epochs, the
# best two go on with 10, and the best one with 20. Since the search itself
# compares plain training with the noise model, the classifier need not do so
# again in every fit (``select_noise_model=False``), and since the search
# decides on the epochs, nothing has to be held out to stop early.

search = HalvingGridSearchCV(
    NoisyLabelClassifier(
        select_noise_model=False,
        early_stopping=False,
        lr=5e-3,
        random_state=0,
    ),
    {"noise_model": [None, "s"], "hidden_layer_sizes": [(16,), (100,)]},
    resource="max_epochs",
    min_resources=5,
    max_resources=20,
    factor=2,
    scoring=noisy_log_likelihood_scorer,
    cv=2,
    random_state=0,
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UnreliableFitWarning)
    search.fit(X, y_observed)
results = search.cv_results_
for iteration, epochs in enumerate(search.n_resources_):
    print(f"{epochs:2} epochs, candidates: {search.n_candidates_[iteration]}")
chosen = {
    name: value
    for name, value in search.best_params_.items()
    if name != "max_epochs"
}
print(f"chosen: {chosen}")

# %%
# The chosen candidate is fitted again, with as many epochs as it needs, forty
# at most. Clean test labels, which no search would have, show how good the
# choice was.

best = NoisyLabelClassifier(lr=5e-3, max_epochs=40, random_state=0, **chosen)
best.fit(X, y_observed)
print(f"accuracy on clean test labels: {best.score(X_test, y_test):.3f}")

figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
for noise_model, colour, label in (
    (None, "0.55", "plain"),
    ("s", "#0072B2", "s-model"),
):
    which = np.array(
        [p["noise_model"] == noise_model for p in results["params"]]
    )
    axes.plot(
        results["n_resources"][which],
        results["mean_test_score"][which],
        "o",
        color=colour,
        label=label,
    )
axes.set(
    xlabel="epochs",
    ylabel="log-likelihood of held-out observed labels",
    xticks=search.n_resources_,
    title="Candidates of each round",
)
axes.legend(loc="lower right")
plt.show()

# %%
# The same with Optuna
# --------------------
# `Optuna <https://optuna.org>`_ suits larger spaces, with continuous
# parameters. The objective is a cross-validated likelihood:
#
# .. code-block:: python
#
#     import optuna
#     from sklearn.model_selection import cross_val_score
#
#
#     def objective(trial):
#         width = trial.suggest_int("width", 16, 128, log=True)
#         classifier = NoisyLabelClassifier(
#             noise_model=trial.suggest_categorical("noise_model", [None, "s"]),
#             hidden_layer_sizes=(width,),
#             lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True),
#             random_state=0,
#         )
#         scores = cross_val_score(
#             classifier,
#             X,
#             y_observed,
#             scoring=noisy_log_likelihood_scorer,
#             cv=2,
#         )
#         return scores.mean()
#
#
#     sampler = optuna.samplers.TPESampler(seed=0)
#     study = optuna.create_study(direction="maximize", sampler=sampler)
#     study.optimize(objective, n_trials=15)
#     print(study.best_params)
#
