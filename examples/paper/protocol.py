"""The protocol of the paper, shared by the scripts for MNIST and for CIFAR-100.

Methods that go through the same stages share one training: the baseline, the s-model and the
c-model of a start are three moments of the same fit, caught by a callback at the end of each
stage. With a seed they are what three fits of their own would give, to the last bit. The defaults
of this package choose between starts, and between noise models and none, so each of their methods
is a fit of its own, and what it ends with is scored.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from public_code import CountedStart, KeptBias, public_code_callbacks, with_glorot_weights
from reed import bootstrap_classifier
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback as SkorchCallback
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels

KEY = ["data", "size", "level", "method", "seed"]
FIELDS = [
    *KEY, "accuracy", "transition_error", "start_error", "noise_rate", "epochs", "seconds",
    "device",
]  # fmt: skip


class Images(NamedTuple):
    """Training and test rows with clean labels."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


class Figure(NamedTuple):
    """What is run for one data set.

    Parameters
    ----------
    name : str
        In the table.
    load : callable
        Takes the folder of the data, or None, and returns `Images`.
    transition : callable
        Takes a noise level and a seed and returns the true matrix (true, observed).
    options : dict
        Parameters of the classifier.
    network : callable
        Returns a new network with logits on top, for bootstrapping.
    levels : list of float
    chains : list of str
        Those of `CHAINS` that are run.
    quick_size : float
        Percent of the training data for a first look.
    variants : list of str
        Chains that are run when their methods are named.
    subset : callable or None
        Takes images, percent and a seed and returns the images to train on; None is `subset`.
    """

    name: str
    load: Callable[[Path | None], Images]
    transition: Callable[[float, int], np.ndarray]
    options: dict[str, Any]
    network: Callable[[], nn.Module]
    levels: list[float]
    chains: list[str]
    quick_size: float
    variants: list[str] = []  # noqa: RUF012
    subset: Callable[[Images, float, int], Images] | None = None


class Chain(NamedTuple):
    """One training and the methods that are found on its way.

    Parameters
    ----------
    options : dict
        Parameters of the classifier.
    methods : dict of str
        {stage: method}.
    callbacks : callable
        Returns new callbacks.
    """

    options: dict[str, Any]
    methods: dict[str, str]
    callbacks: Callable[[], list[SkorchCallback]] = list


#: The noise layer as published, without what this package adds to it.
BARE = {"transition_prior": 0.0, "select_noise_model": False, "early_stopping": True}
FORMULA = {"transition_init": "confusion", **BARE}
SPARSE = {"n_noise_targets": 5}
MAX_EPOCHS = 40
#: Stands for the true matrix.
KNOWN = "known"
#: Stands for hidden layers that begin with Glorot's weights, in every stage that starts over.
GLOROT = "glorot"
#: Training that ends because held-out labels are explained no better, in fifteen epochs.
PATIENT = {"max_epochs": "auto", "n_iter_no_change": 15}
#: `n_iter_no_change` leaves it to the callbacks to stop.
CODE = {"transition_init": "hard_confusion", "n_iter_no_change": MAX_EPOCHS, **BARE}


def _stages(of: str, *stages: str) -> dict[str, str]:
    return {stage: f"{stage}-{of}" for stage in stages}


#: The formula as printed, the public code, and the defaults of this package; each of them with
#: variants. Below them the public code with one thing changed, and the formula with one.
CHAINS = {
    "formula": Chain(FORMULA, {"baseline": "baseline", **_stages("formula", "s", "c")}),
    "code": Chain(CODE, _stages("code", "baseline", "s", "c"), public_code_callbacks),
    "ours": Chain({}, {"s": "s"}),
    "ours-c": Chain({}, {"c": "c"}),
    "em-formula": Chain({"method": "em", **FORMULA}, {"em": "em-formula"}),
    "em": Chain({"method": "em"}, {"em": "em"}),
    "reed-soft": Chain({"beta": 0.95, "hard": False}, {"reed": "reed-soft"}),
    "reed-hard": Chain({"beta": 0.8, "hard": True}, {"reed": "reed-hard"}),
    "sparse-formula": Chain({**SPARSE, **FORMULA}, _stages("sparse-formula", "s", "c")),
    "sparse-code": Chain(
        {**SPARSE, **CODE}, _stages("sparse-code", "s", "c"), public_code_callbacks
    ),
    "sparse": Chain(SPARSE, {"s": "s-sparse"}),
    "sparse-c": Chain(SPARSE, {"c": "c-sparse"}),
    "code-soft": Chain(
        CODE,
        _stages("code-soft", "s", "c"),
        lambda: [*public_code_callbacks(), CountedStart(hard=False)],
    ),
    "code-held-out": Chain(
        CODE,
        _stages("code-held-out", "s", "c"),
        lambda: [*public_code_callbacks(), CountedStart(rows="held out")],
    ),
    "code-best-epoch": Chain(
        CODE,
        _stages("code-best-epoch", "baseline", "s", "c"),
        partial(public_code_callbacks, last_epoch=False),
    ),
    "code-kept-bias": Chain(
        CODE, _stages("code-kept-bias", "c"), lambda: [*public_code_callbacks(), KeptBias()]
    ),
    "code-torch-weights": Chain(
        CODE,
        _stages("code-torch-weights", "baseline", "s", "c"),
        partial(public_code_callbacks, glorot=False),
    ),
    "code-calibrated-stop": Chain(
        {**CODE, "n_iter_no_change": 4},
        _stages("code-calibrated-stop", "baseline", "s", "c"),
        partial(public_code_callbacks, plain_stopping=False),
    ),
    "known": Chain({"transition_init": KNOWN, "learn_transition": False, **BARE}, {"s": "known"}),
    "known-patient": Chain(
        {"transition_init": KNOWN, "learn_transition": False, **BARE, **PATIENT},
        {"s": "known-patient"},
    ),
    "known-glorot": Chain(
        {"transition_init": KNOWN, "learn_transition": False, GLOROT: True, **BARE},
        {"s": "known-glorot"},
    ),
    "glorot": Chain({GLOROT: True}, _stages("glorot", "baseline", "s")),
    "glorot-c": Chain({GLOROT: True}, _stages("glorot", "c")),
    "glorot-patient": Chain({GLOROT: True, **PATIENT}, _stages("glorot-patient", "baseline", "s")),
    "patient": Chain(PATIENT, _stages("patient", "s")),
    "formula-hard": Chain({**CODE, "n_iter_no_change": 4}, _stages("formula-hard", "s", "c")),
}


class Milestones(SkorchCallback):
    """Score the network at the end of every stage.

    Parameters
    ----------
    score : callable
        Takes the net and the name of a stage. A function, as callbacks are copied for every
        stage and functions are not.
    """

    def __init__(self, score: Callable[[Any, str], None]) -> None:
        self.score = score

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Score the weights that the stage ends with."""
        self.score(net, net.history[-1, "stage"])


def run_chain(
    figure: Figure, chain: Chain, observed: np.ndarray, images: Images, true: np.ndarray, **run: Any
) -> Iterator[dict[str, Any]]:
    """Train once and yield what each method of a chain reached."""
    seed, device, max_epochs = run["seed"], run["device"], run["max_epochs"]
    begin = time.perf_counter()

    def measured(method: str, accuracy: float, **more: float) -> dict[str, Any]:
        row = {"method": method, "accuracy": accuracy, **more}
        row["seconds"] = time.perf_counter() - begin
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}

    if "reed" in chain.methods:
        torch.manual_seed(seed)
        classifier = bootstrap_classifier(
            figure.network(), max_epochs=max_epochs, seed=seed, device=device, **chain.options
        )
        classifier.fit(images.X, observed.astype(np.int64))
        accuracy = float(np.mean(classifier.predict(images.X_test) == images.y_test))
        yield measured(chain.methods["reed"], accuracy, epochs=len(classifier.history))
        return

    rows: dict[str, dict[str, Any]] = {}

    def score(net: Any, stage: str) -> None:
        if stage in chain.methods:
            accuracy = float(np.mean(net.predict(images.X_test) == images.y_test))
            found = {"epochs": len(net.whole_history())}
            if stage in ("s", "em"):
                matrix = net.network.noise.matrix()
                found["transition_error"] = transition_matrix_error(matrix, true)
            rows[stage] = measured(chain.methods[stage], accuracy, **found)

    last = list(chain.methods)[-1]
    options = {"max_epochs": max_epochs, **figure.options, **chain.options}
    if options.get("transition_init") == KNOWN:
        options["transition_init"] = true
    if options.pop(GLOROT, False):
        options["module"] = partial(with_glorot_weights, options["module"])
    noisy = NoisyLabelClassifier(
        noise_model={"em": "s", "baseline": None}.get(last, last),
        random_state=seed,
        device=device,
        callbacks=[*chain.callbacks(), Milestones(score)],
        **options,
    ).fit(images.X, observed)
    matrix, start = noisy.transition_matrix_, noisy.initial_transition_matrix_
    for stage, row in rows.items():
        if stage != "baseline":
            row["start_error"] = round(transition_matrix_error(start, true), 5)
        if stage == last and stage != "baseline":
            row["accuracy"] = round(noisy.score(images.X_test, images.y_test), 5)
            row["transition_error"] = round(transition_matrix_error(matrix, true), 5)
            row["noise_rate"] = round(noisy.noise_rate_, 5)
        yield row


def run_chunk(
    figure: Figure,
    chain: Chain,
    all_images: Images,
    size: float,
    level: float,
    seed: int,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Return the rows of one training: a share of the data, a noise level and a seed."""
    images = (figure.subset or subset)(all_images, size, seed)
    true = figure.transition(level, seed)
    observed = corrupt_labels(images.y, true, exact=True, random_state=seed)
    rows = run_chain(
        figure, chain, observed, images, true, seed=seed, device=device, max_epochs=MAX_EPOCHS
    )
    found = {
        "data": figure.name,
        "size": f"{size:g}",
        "level": f"{level:g}",
        "seed": seed,
        "device": device,
    }
    return [{**row, **found} for row in rows]


def finished(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", newline="") as file:
        file.write(text.getvalue())


def subset(images: Images, size: float, seed: int) -> Images:
    """Keep a share of the training rows, stratified by the clean label."""
    if size >= 100:
        return images
    kept, _ = train_test_split(
        np.arange(len(images.X)), train_size=size / 100, stratify=images.y, random_state=seed
    )
    kept.sort()
    return images._replace(X=images.X[kept], y=images.y[kept])


def summarise(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield a line per size, level and method: mean and spread over the seeds."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in KEY[:4]), []).append(row)
    yield f"{'data':9} {'size':>5} {'level':>5} {'method':19} {'accuracy':>15} {'T error':>8} seeds"
    for (data, size, level, method), group in sorted(groups.items()):
        accuracy = np.array([float(row["accuracy"]) for row in group])
        errors = [float(row["transition_error"]) for row in group if row["transition_error"]]
        error = f"{np.mean(errors):8.3f}" if errors else f"{'-':>8}"
        yield (
            f"{data:9} {size:>5} {level:>5} {method:19} {accuracy.mean():.4f} +- "
            f"{accuracy.std():.4f} {error} {len(group)}"
        )


def main(figure: Figure, description: str) -> None:
    """Run what is missing from the table, or print it."""
    default_methods, variants = (
        [method for name in names for method in CHAINS[name].methods.values()]
        for names in (figure.chains, figure.variants)
    )
    default = Path(__file__).with_name(f"{figure.name}.csv")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--sizes", nargs="+", type=float, default=[20.0], help="in percent")
    parser.add_argument("--levels", nargs="+", type=float, default=figure.levels)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--methods", nargs="+", choices=default_methods + variants, default=default_methods
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--output", type=Path, help="the table, made or continued")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{figure.quick_size:g} %% of the data, noise .30 and .46, one seed",
    )
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.levels, args.seeds = [figure.quick_size], [0.3, 0.46], args.seeds[:1]
    output = args.output or (default.with_stem(f"{figure.name}-quick") if args.quick else default)
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.summary:
        _run_missing(figure, args, output)
    print("\n".join(summarise(finished(output))))


def _run_missing(figure: Figure, args: argparse.Namespace, output: Path) -> None:
    plan = [
        (size, seed, level, name)
        for size in args.sizes
        for seed in args.seeds
        for level in args.levels
        for name in figure.chains + figure.variants
        if set(CHAINS[name].methods.values()) & set(args.methods)
    ]
    all_images = figure.load(args.data)
    for number, (size, seed, level, name) in enumerate(plan, 1):
        key = [figure.name, f"{size:g}", f"{level:g}"]
        done = {
            row["method"]
            for row in finished(output)
            if [row[k] for k in ("data", "size", "level", "seed")] == [*key, str(seed)]
        }
        missing = {
            stage: method
            for stage, method in CHAINS[name].methods.items()
            if method in args.methods and method not in done
        }
        if not missing:
            continue
        label = f"[{number}/{len(plan)}] {figure.name} {size:g} %, noise {level:g}, seed {seed}: "
        print(f"{label}{', '.join(missing.values())} ...", flush=True)
        chain = CHAINS[name]._replace(methods=missing)
        rows = run_chunk(figure, chain, all_images, size, level, seed, args.device)
        _append(output, rows)
        for row in rows:
            print(f"    {row['method']:19} {row['accuracy']:.4f} {row['seconds']:7.1f} s")
