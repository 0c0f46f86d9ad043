"""Draw the pictures of the page "Why it works, and when it cannot", and the decision chart.

    python examples/study/draw_theory.py        # writes doc/images/theory_*.png, decision_chart.png

It takes a few seconds and needs no data.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch
from scipy.optimize import minimize
from scipy.special import entr, expit, logit
from sklearn.linear_model import LogisticRegression

IMAGES = Path(__file__).resolve().parents[2] / "doc" / "images"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def save(figure, name):
    figure.savefig(IMAGES / f"{name}.png", dpi=150)
    plt.close(figure)


def draw_identifiability():
    x = np.linspace(-4, 4, 400)
    clean = expit(6 * x)
    observed = 0.2 + 0.6 * clean
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True, layout="constrained")
    panels[0].plot(x, observed, color="k")
    panels[0].set(title="What is observed", ylabel="probability of label 1")
    panels[1].plot(x, clean, color=BLUE)
    panels[1].set(title="Clear classes, 20 % noise")
    panels[2].plot(x, observed, color=ORANGE)
    panels[2].set(title="Overlapping classes, no noise")
    for panel, matrix in zip(panels[1:], ("0.8  0.2\n0.2  0.8", "1  0\n0  1"), strict=True):
        panel.text(1.2, 0.3, f"T =\n{matrix}", ha="left", va="center")
    for panel in panels:
        panel.set(xlabel="feature", ylim=(-0.03, 1.03))
    save(figure, "theory_identifiability")


def two_classes(n_rows=600, seed=0):
    """Return a feature and observed labels: 30 % of class 0 and 15 % of class 1 are wrong."""
    rng = np.random.RandomState(seed)
    truth = rng.randint(2, size=n_rows)
    x = rng.normal(3 * truth - 1.5, 1.0)
    flipped = rng.uniform(size=n_rows) < np.where(truth == 0, 0.3, 0.15)
    return x, truth ^ flipped


def likelihood(line, off, x, z):
    """Return the mean log-likelihood of labels, given p(y=1|x) as a line and both error rates."""
    clean = expit(line[0] * x + line[1])
    observed = clean * (1 - off[1]) + (1 - clean) * off[0]
    observed = np.clip(observed, 1e-9, 1 - 1e-9)
    return np.mean(np.where(z == 1, np.log(observed), np.log1p(-observed)))


def best_likelihood(off, x, z):
    """Maximise over the line, from either orientation."""
    penalty = 1e-3
    return -min(
        minimize(
            lambda line: penalty * line @ line / len(x) - likelihood(line, off, x, z), start
        ).fun
        for start in ([2.0, 0.0], [-2.0, 0.0])
    )


def em(off, x, z, n_iter):
    """Return both error rates and the likelihood of each iteration of EM."""
    line, path = None, []
    clean = np.where(z == 1, 0.7, 0.3)
    for iteration in range(n_iter + 1):
        if line is not None:
            clean = expit(line[0] * x + line[1])
            path.append((*off, likelihood(line, off, x, z)))
        one = clean * np.where(z == 1, 1 - off[1], off[1])
        zero = (1 - clean) * np.where(z == 1, off[0], 1 - off[0])
        posterior = one / (one + zero)
        if iteration:
            off = (
                np.sum((1 - posterior) * (z == 1)) / np.sum(1 - posterior),
                np.sum(posterior * (z == 0)) / np.sum(posterior),
            )
        targets, weights = np.repeat([0, 1], len(x)), np.r_[1 - posterior, posterior]
        fit = LogisticRegression(C=1e3).fit(np.tile(x, 2)[:, None], targets, weights)
        line = fit.coef_[0, 0], fit.intercept_[0]
    return np.array(path)


def draw_start():
    x, z = two_classes()
    grid = np.linspace(0.02, 0.98, 25)
    surface = np.array([[best_likelihood((a, b), x, z) for a in grid] for b in grid])
    figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
    levels = np.linspace(np.quantile(surface, 0.3), surface.max(), 12)
    image = axes.contourf(grid, grid, surface, levels, cmap="Greys", extend="min", alpha=0.7)
    figure.colorbar(image, label="log-likelihood of an observed label", format="%.2f")
    axes.plot([0, 1], [1, 0], "k--", linewidth=1, label="the label says nothing")
    starts = (((0.05, 0.4), BLUE, "EM, right names"), ((0.95, 0.6), RED, "EM, swapped names"))
    for start, colour, label in starts:
        path = em(start, x, z, 200)
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=2, label=label)
        axes.plot(*path[0, :2], "o", color=colour, markersize=7, markerfacecolor="w")
        axes.plot(*path[-1, :2], "*", color=colour, markersize=14)
    axes.plot(0.3, 0.15, "k+", markersize=12, markeredgewidth=2, label="true error rates")
    axes.set(
        xlabel="share of class 0 labelled 1",
        ylabel="share of class 1 labelled 0",
        xlim=(0, 1),
        ylim=(0, 1),
        title="Circles: starts. Stars: where EM ends.",
    )
    axes.legend(loc="upper left", fontsize=8)
    save(figure, "theory_start")


def ascend(off, x, z, n_iter, step):
    """Return the likelihood of each iteration of gradient ascent, from where EM starts."""

    def value(parameters):
        return likelihood(parameters[:2], expit(parameters[2:]), x, z)

    first = em(off, x, z, 1)
    clean = np.where(z == 1, 0.7, 0.3)
    one = clean * np.where(z == 1, 1 - off[1], off[1])
    zero = (1 - clean) * np.where(z == 1, off[0], 1 - off[0])
    weights = np.r_[zero, one] / np.tile(one + zero, 2)
    fit = LogisticRegression(C=1e3).fit(np.tile(x, 2)[:, None], np.repeat([0, 1], len(x)), weights)
    parameters = np.array([fit.coef_[0, 0], fit.intercept_[0], *logit(off)])
    assert np.isclose(value(parameters), first[0, 2])
    values = [value(parameters)]
    for _ in range(n_iter):
        shifts = 1e-5 * np.eye(4)
        gradient = [(value(parameters + s) - value(parameters - s)) / 2e-5 for s in shifts]
        parameters = parameters + step * np.array(gradient)
        values.append(value(parameters))
    return np.array(values)


def draw_em():
    x, z = two_classes()
    path = em((0.05, 0.4), x, z, 300)[:, 2]
    ascent = ascend((0.05, 0.4), x, z, 3000, step=2.0)
    print(f"log-likelihood at the end: EM {path[-1]:.4f}, gradient {ascent[-1]:.4f}")
    figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    axes.plot(path, color=GREEN, linewidth=2, label="EM")
    axes.plot(ascent, color=BLUE, linewidth=2, linestyle="--", label="gradient ascent (direct)")
    axes.set(
        xlabel="iteration",
        ylabel="mean log-likelihood",
        xscale="symlog",
        title="The same start, the same data, the same maximum",
    )
    axes.legend()
    save(figure, "theory_em")


def draw_information():
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rates = np.linspace(0, 0.9, 200)
    for n_classes, colour in ((2, RED), (10, BLUE), (100, GREEN)):
        rho = rates[rates <= 1 - 1 / n_classes - 0.02]
        bits = entr(rho) + entr(1 - rho)
        lost = bits / np.log(n_classes) + rho * np.log(n_classes - 1) / np.log(n_classes)
        share = 1 - lost
        print(
            f"{n_classes} classes: share of information at 10, 30, 50 %: "
            + ", ".join(f"{np.interp(r, rho, share):.2f}" for r in (0.1, 0.3, 0.5) if r <= rho[-1])
        )
        left.plot(rho, share, color=colour, linewidth=2, label=f"{n_classes} classes")
        right.semilogy(rho, 1000 / share, color=colour, linewidth=2, label=f"{n_classes} classes")
    left.set(ylabel="share of the information that is left", ylim=(0, 1.02))
    right.set(ylabel="labels worth 1000 clean ones", ylim=(900, 1e5))
    for axes in (left, right):
        axes.set(xlabel="share of wrong labels (uniform noise)")
        axes.legend()
    save(figure, "theory_information")


def draw_chart():
    """Draw the questions of the decision chart, each with what a yes means."""
    steps = [
        (
            "Fewer than 64 rows?",
            "No noise is estimated:\nlabel more rows, or\ngive transition_init=T",
        ),
        ("Do you know the noise?", "transition_init=T,\nlearn_transition=False"),
        ("Several answers a row?", "fit(X, answers), one\ncolumn per annotator"),
        ("Keep a classifier\nof your own?", "find_label_issues,\nNoisyLabelMetaClassifier"),
        ("Noise depends on the\nfeatures, many rows?", 'compare noise_model="c"\nwith "s"'),
        ("More than 100 classes\nwith the c-model?", "n_noise_targets=5"),
        ("Some labels checked?", "fit(X, y, trusted=checked);\nkeep some as a test set"),
    ]
    figure, axes = plt.subplots(figsize=(4.8, 8.6), layout="constrained")
    axes.set(xlim=(0, 10), ylim=(-0.1, len(steps) + 0.75))
    axes.axis("off")

    def box(x, y, width, text, colour, height=0.66):
        shape = "round,pad=0.02,rounding_size=0.12"
        patch = FancyBboxPatch(
            (x, y - height / 2),
            width,
            height,
            shape,
            edgecolor=colour,
            facecolor="w",
            linewidth=1.6,
        )
        axes.add_patch(patch)
        axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=9.5)

    arrow = {"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.3}
    for i, (question, answer) in enumerate(steps):
        y = len(steps) - i + 0.35
        box(0.1, y, 4.1, question, BLUE)
        box(5.3, y, 4.6, answer, ORANGE)
        axes.annotate("", (5.25, y), (4.25, y), arrowprops=arrow)
        axes.text(4.75, y + 0.1, "yes", ha="center", fontsize=8.5, color="0.25")
        axes.annotate("", (2.15, y - 0.66), (2.15, y - 0.35), arrowprops=arrow)
        axes.text(2.3, y - 0.52, "no, or then", va="center", fontsize=8.5, color="0.25")
    box(0.1, 0.35, 4.1, "NoisyLabelClassifier()", GREEN)
    save(figure, "decision_chart")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_identifiability()
    draw_start()
    draw_em()
    draw_information()
    draw_chart()
