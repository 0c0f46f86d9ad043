"""
s-model against c-model
=======================

In the s-model, a wrong label depends on the true class only; in the c-model,
it depends on the features too. Here it does: one annotator is careful and
another one is not, and a feature says which of them it was. The c-model finds
out, and makes fewer mistakes.
"""

# %%
# Noise in a part of the feature space
# ------------------------------------
# Four groups of points in a plane. The third feature is positive for the rows
# of the careless annotator, who gives the name of the next group in 60 % of
# cases; the other one is always right.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition, region_transition

random = np.random.RandomState(0)
groups = random.randint(4, size=3000)
centres = 2 * np.column_stack(
    [np.cos(np.arange(4) * np.pi / 2), np.sin(np.arange(4) * np.pi / 2)]
)
points = np.column_stack(
    [
        centres[groups] + random.normal(scale=0.6, size=(3000, 2)),
        random.normal(size=3000),
    ]
)
observed = corrupt_labels(
    groups,
    region_transition(points[:, 2] > 0, pair_transition(4, 0.6)),
    random_state=0,
)
print(f"wrong labels: {np.mean(observed != groups):.1%}")

# %%
# Three seeds: splits and weights change. The likelihood of the observed test
# labels says which of the two noise models fits better, without clean labels.
# A plain network can predict observed labels as well as the c-model, since it
# may learn the annotators' habits along with the groups. It just cannot tell
# the two apart.

accuracy = {None: [], "s": [], "c": []}
likelihood = {None: [], "s": [], "c": []}
for seed in range(3):
    X, X_test, y_observed, y_test_observed, _, y_test = train_test_split(
        points, observed, groups, test_size=0.4, random_state=seed
    )
    for noise_model in accuracy:
        classifier = NoisyLabelClassifier(
            noise_model=noise_model, random_state=seed
        )
        classifier.fit(X, y_observed)
        accuracy[noise_model].append(classifier.score(X_test, y_test))
        likelihood[noise_model].append(
            noisy_log_likelihood_scorer(classifier, X_test, y_test_observed)
        )
for noise_model, values in accuracy.items():
    print(
        f"noise_model={noise_model!r:4} clean test accuracy "
        f"{np.mean(values):.3f} +- {np.std(values):.3f}, log-likelihood of "
        f"observed labels {np.mean(likelihood[noise_model]):.3f} "
        f"+- {np.std(likelihood[noise_model]):.3f}"
    )

# %%
# Where the labels are wrong
# --------------------------
# With the c-model, ``predict_transition`` returns one matrix for each row. The
# diagonal element of the true class is the probability that the label is
# right. The default keeps the matrix near its start (``transition_prior``),
# which makes the two annotators look somewhat more alike.

transition = classifier.predict_transition(X_test)
wrong = 1 - transition[np.arange(len(y_test)), y_test, y_test]
careless = X_test[:, 2] > 0
print(f"wrong labels, careless annotator: {wrong[careless].mean():.1%}")
print(f"wrong labels, careful annotator: {wrong[~careless].mean():.1%}")

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 3.8), layout="constrained"
)
names = ["plain", "s-model", "c-model"]
left.bar(
    names,
    [np.mean(v) for v in accuracy.values()],
    color=["0.55", "#0072B2", "#E69F00"],
)
for i, values in enumerate(accuracy.values()):
    left.plot([i] * 3, values, "k.")
left.set(
    ylim=(0.6, 1.0),
    ylabel="clean test accuracy",
    title="Accuracy (dots: seeds)",
)
right.scatter(
    X_test[:, 2], wrong, s=8, color="#E69F00", label="c-model, last seed"
)
right.plot([-3, 0, 0, 3], [0, 0, 0.6, 0.6], "k--", label="true noise")
right.set(
    xlabel="feature that tells the annotator",
    ylabel="probability of a wrong label",
    ylim=(-0.03, 1.0),
    title="Where the labels are wrong",
)
right.legend(loc="upper left")
plt.show()
