"""
s-model against c-model
=======================

In the s-model, a wrong label depends on the true class only. In the c-model,
it depends on the features too. Here it does: one annotator is careful and
another one is not, and a feature says which of them labelled the row.
"""

# %%
# Two annotators
# --------------
# Digits, with one more column: 1 for the careless annotator, who gives the
# next digit in 45 % of cases, and 0 for the careful one, who is always right.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition, region_transition

pixels, digits = load_digits(return_X_y=True)
careless = np.random.RandomState(0).randint(2, size=len(digits))
features = np.column_stack([pixels / 16, careless])
noise = region_transition(careless == 1, pair_transition(10, 0.45))
observed = corrupt_labels(digits, noise, random_state=0)
print(f"wrong labels: {np.mean(observed != digits):.1%}")

# %%
# Two seeds: splits and weights change. To see each noise model by itself,
# ``select_noise_model=False`` keeps it in any case.

noise_models = {"plain": None, "s-model": "s", "c-model": "c"}
accuracy = {name: [] for name in noise_models}
likelihood = {name: [] for name in noise_models}
for seed in range(2):
    X, X_test, y_observed, y_test_observed, _, y_test = train_test_split(
        features, observed, digits, test_size=0.4, random_state=seed
    )
    for name, noise_model in noise_models.items():
        classifier = NoisyLabelClassifier(
            noise_model=noise_model,
            select_noise_model=False,
            lr=5e-3,
            max_epochs=20,
            random_state=seed,
        ).fit(X, y_observed)
        accuracy[name].append(classifier.score(X_test, y_test))
        likelihood[name].append(
            noisy_log_likelihood_scorer(classifier, X_test, y_test_observed)
        )
for name, values in accuracy.items():
    print(
        f"{name:8} clean test accuracy {np.mean(values):.3f} "
        f"+- {np.std(values):.3f}, log-likelihood of observed labels "
        f"{np.mean(likelihood[name]):.3f} +- {np.std(likelihood[name]):.3f}"
    )

# %%
# Both noise models find the digits, and the c-model explains the observed
# labels best. Note what the likelihood says of the other two: the plain network
# predicts observed labels better than the s-model, because it can learn that
# one annotator makes mistakes, and yet it knows the digits less well.
#
# Where the labels are wrong
# --------------------------
# With the c-model, ``predict_transition`` returns one matrix for each row. One
# minus the diagonal element of the true class is the probability that the label
# is wrong. The c-model tells the two annotators apart. It draws them together
# somewhat, because the default keeps the matrix near its start, which is the
# same for all rows (``transition_prior``).

matrices = classifier.predict_transition(X_test)
wrong = 1 - matrices[np.arange(len(y_test)), y_test, y_test]
groups = [wrong[X_test[:, -1] == who] for who in (0, 1)]
for name, group in zip(("careful", "careless"), groups, strict=True):
    print(f"estimated share of wrong labels, {name:8}: {group.mean():.1%}")

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 3.8), layout="constrained"
)
left.bar(
    list(accuracy),
    [np.mean(v) for v in accuracy.values()],
    color=["0.55", "#0072B2", "#E69F00"],
)
for i, values in enumerate(accuracy.values()):
    left.plot([i] * 2, values, "k.")
left.set(
    ylim=(0.6, 1.0),
    ylabel="clean test accuracy",
    title="Accuracy (dots: seeds)",
)
for at, group in enumerate(groups):
    jitter = np.random.RandomState(0).uniform(-0.2, 0.2, len(group))
    right.plot(at + jitter, group, ".", color="#E69F00", alpha=0.5)
    right.plot([at - 0.3, at + 0.3], [0.45 * at] * 2, "k--")
right.set_xticks([0, 1], ["careful", "careless"])
right.set(
    ylabel="probability of a wrong label",
    title="c-model, one dot a row (broken line: truth)",
)
plt.show()
