"""
A messy table: from a CSV file to corrected labels
==================================================

The columns are numbers and text, values are missing, and 30 % of the labels
are wrong. We find the suspicious rows, review some of them, put the
corrections back and train again. The steps are those of the
:doc:`quick start </quickstart>`, and the code works for your own file too.
"""

# %%
# The data
# --------
# Customers of a phone company and the plan that suits them. To have something
# to compare with, we make the table ourselves: ``truth`` is the correct plan,
# and the column ``label`` is wrong for 30 % of the rows, where somebody chose
# the next plan in the list.

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sknoisy.noise import corrupt_labels, pair_transition

folder = Path(mkdtemp())
plans = np.array(["basic", "family", "premium"])
rng = np.random.default_rng(0)
n_rows = 1300
code = rng.integers(3, size=n_rows)
truth = plans[code]
regions = np.array(["north", "south", "west", "east"])
table = pd.DataFrame(
    {
        "age": rng.normal(30 + 9 * code, 7).round(),
        "income": np.exp(rng.normal(10 + 0.5 * code, 0.35)).round(),
        "calls": rng.poisson(2 + 3 * (code == 1)),
        "region": np.where(
            rng.random(n_rows) < 0.6, regions[code], rng.choice(regions, n_rows)
        ),
        "channel": np.where(
            rng.random(n_rows) < 0.5,
            np.array(["shop", "phone", "web"])[code],
            rng.choice(["shop", "phone", "web"], n_rows),
        ),
    }
)
for column in ("age", "income", "region"):
    table.loc[rng.random(n_rows) < 0.1, column] = np.nan
table["label"] = plans[
    corrupt_labels(code, pair_transition(3, 0.3), random_state=0)
]
table.to_csv(folder / "labelled.csv", index=False)
print(table.head().to_string())

# %%
# From the file to a list
# -----------------------
# Missing numbers are filled in and marked, and text columns become one column
# for each common value. Rows without a label are left out. Nothing here
# depends on the names of the columns.

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues

table = pd.read_csv(folder / "labelled.csv").dropna(subset="label")
X, y = table.drop(columns="label"), table["label"]

numbers = SimpleImputer(strategy="median", add_indicator=True)
categories = OneHotEncoder(
    handle_unknown="infrequent_if_exist", min_frequency=10, sparse_output=False
)
columns = make_column_transformer(
    (numbers, make_column_selector(dtype_include="number")),
    (categories, make_column_selector(dtype_exclude="number")),
)
model = make_pipeline(
    columns, NoisyLabelClassifier(lr=5e-3, max_epochs=8, random_state=0)
)

issues = find_label_issues(model, X, y, cv=3)
print(issues)
print(issues.frame.iloc[:5, :5].to_string())

# %%
# Is the list any good?
# ---------------------
# Only in an example can we ask. The estimated noise rate is close to 30 %, and
# most of the listed rows are wrong indeed.

wrong = (y != truth).to_numpy()
print(f"wrong labels: {wrong.sum()}, listed: {issues.count}")
print(f"listed labels that are wrong: {wrong[issues.indices].mean():.1%}")
found = wrong[issues.indices].sum() / wrong.sum()
print(f"wrong labels that are listed: {found:.1%}")
suggested = issues.suggested_labels == truth[issues.indices]
print(f"suggestions that are right:   {suggested.mean():.1%}")

# %%
# Review and correct
# ------------------
# ``issues.to_html`` writes a page on which you accept or reject suggestions
# with the keyboard, and which saves your decisions as a CSV file. Here the
# reviewer looks at all listed rows and knows the truth.

from sknoisy.inspection import apply_corrections

issues.to_html(folder / "report.html", X=X)
reviewed = [{"row": row, "label": truth[row]} for row in issues.indices]
y_reviewed = apply_corrections(y, reviewed)
print(f"wrong labels before: {wrong.mean():.1%}")
print(f"wrong labels after:  {(y_reviewed != truth).mean():.1%}")

# %%
# Train
# -----
# Three ways to use the table, judged by the true plans of 300 new customers:
# believe the labels, model the noise, or train after the review. Here
# modelling the noise is nearly as good as reviewing every suspicious row. A
# review pays off where the labels themselves are used again.

X_train, X_new = X.iloc[:1000], X.iloc[1000:]
plain = make_pipeline(
    columns,
    NoisyLabelClassifier(
        noise_model=None, lr=5e-3, max_epochs=8, random_state=0
    ),
)
fits = {
    "plain": plain.fit(X_train, y[:1000]),
    "sknoisy": model.fit(X_train, y[:1000]),
}
scores = {name: fit.score(X_new, truth[1000:]) for name, fit in fits.items()}
matrix = model[-1].transition_matrix_
model.fit(X_train, y_reviewed[:1000])
scores["sknoisy, reviewed"] = model.score(X_new, truth[1000:])
for name, score in scores.items():
    print(f"{name:18} accuracy on true labels {score:.3f}")

# %%
# How the labels went wrong, as estimated from the noisy labels alone. The
# truth is 0.7 on the diagonal and 0.3 next to it.

from sknoisy.inspection import TransitionMatrixDisplay

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained"
)
left.bar(list(scores), scores.values(), color=["0.55", "#0072B2", "#56B4E9"])
left.set(
    ylim=(0, 1), ylabel="accuracy on true labels", title="300 new customers"
)
TransitionMatrixDisplay.from_matrix(matrix, display_labels=plans, ax=right)
right.set_title("Estimated noise")
plt.show()
