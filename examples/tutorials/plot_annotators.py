"""
Several annotators: who is reliable?
====================================

Six people label images of digits, and each image is seen by two of them: an
expert, three novices, one who presses any key, and one who nearly always gives
the next digit. `NoisyLabelClassifier` learns a transition matrix for each of
them together with the network, without a single checked label.
"""

# %%
# The answers are an array with a column for each annotator, -1 where there is
# no answer.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.crowd import dawid_skene, krippendorff_alpha, majority_vote
from sknoisy.inspection import (
    AnnotatorQualityDisplay,
    TransitionMatrixDisplay,
    find_label_issues,
)
from sknoisy.noise import pair_transition, uniform_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)
people = {
    "expert": uniform_transition(10, 0.1),
    "novice 1": uniform_transition(10, 0.4),
    "novice 2": uniform_transition(10, 0.4),
    "novice 3": uniform_transition(10, 0.5),
    "spammer": np.full((10, 10), 0.1),
    "next digit": pair_transition(10, 0.9),
}
rng = np.random.RandomState(0)
answers = pd.DataFrame(-1, index=range(len(y)), columns=list(people))
for row, digit in enumerate(y):
    for person in rng.choice(len(people), 2, replace=False):
        matrix = list(people.values())[person]
        answers.iloc[row, person] = rng.choice(10, p=matrix[digit])
print(answers.head())
print(f"Krippendorff's alpha: {krippendorff_alpha(answers):.2f}")

# %%
# Without features, the majority vote of two answers is often a tie, and two
# answers say little about who is right.
majority = majority_vote(answers, random_state=0)
alone = dawid_skene(answers).labels
print(f"right labels, majority:         {np.mean(majority == y):.3f}")
print(f"right labels, Dawid and Skene:  {np.mean(alone == y):.3f}")

# %%
# With features, the consensus of annotators and network is nearly always
# right, and the network is nearly as good as one that was trained on true
# labels.
settings = {"lr": 5e-3, "max_epochs": 20, "random_state": 0}
classifier = NoisyLabelClassifier(**settings).fit(X, answers)
plain = NoisyLabelClassifier(noise_model=None, **settings).fit(X, answers)
clean = NoisyLabelClassifier(noise_model=None, **settings).fit(X, y)
consensus = classifier.label_posterior(X, answers).argmax(axis=1)
print(f"right labels, consensus:        {np.mean(consensus == y):.3f}")
print(f"test accuracy, majority:        {plain.score(X_test, y_test):.3f}")
print(f"test accuracy, all answers:     {classifier.score(X_test, y_test):.3f}")
print(f"test accuracy, true labels:     {clean.score(X_test, y_test):.3f}")

# %%
# The quality of the annotators, with 90 % intervals, and what two of them
# confuse.
fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
display = AnnotatorQualityDisplay.from_estimator(classifier, ax=axes[0])
for ax, at in zip(axes[1:], [0, 5], strict=True):
    TransitionMatrixDisplay.from_matrix(
        classifier.annotator_transitions_[at], ax=ax, colorbar=False
    )
    ax.set_title(list(people)[at])

# %%
# Individual answers that are probably wrong, the most suspicious first.
issues = find_label_issues(classifier, X, answers)
print(f"expected number of wrong answers: {issues.count}")
wrong = answers.ne(y, axis=0) & (answers >= 0)
print(f"wrong answers:                    {wrong.to_numpy().sum()}")
for row, person, label, better in zip(
    issues.indices[:5],
    issues.annotators[:5],
    issues.observed_labels[:5],
    issues.suggested_labels[:5],
    strict=True,
):
    print(
        f"image {row}: {person} said {label}, probably {better}, true {y[row]}"
    )
