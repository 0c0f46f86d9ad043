"""
One fit in several workers of Ray Train
=======================================

Two workers on this machine (needs ``pip install "ray[train]"``)::

    python examples/launch/train_ray.py

Ray opens the process group in each worker before it calls the function. The result comes back as a
report of the first worker; the model goes through storage that all machines see.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy.noise import corrupt_labels, pair_transition


def fit_in_worker(config: dict[str, Any]) -> None:
    """Fit together with the other workers; the first one reports the model."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)

    device = str(ray.train.torch.get_device())
    classifier = NoisyLabelClassifier(device=device, random_state=0, **config)
    classifier.fit(X, y_observed)

    metrics = {"accuracy": classifier.score(X_test, y_test), "noise": classifier.noise_rate_}
    context = ray.train.get_context()
    if context.get_world_rank() > 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(classifier, Path(folder) / "digits.sknoisy")
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def main() -> None:
    """Start two workers, and load the model that the first one has reported."""
    trainer = TorchTrainer(
        fit_in_worker,
        train_loop_config={"hidden_layer_sizes": (100,)},
        torch_config=TorchConfig(backend="gloo"),  # leave it out for GPUs: "nccl"
        scaling_config=ray.train.ScalingConfig(num_workers=2, use_gpu=False),
    )
    result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        classifier = load_model(Path(folder) / "digits.sknoisy")
    print(
        f"2 workers: accuracy {result.metrics['accuracy']:.3f}, noise {classifier.noise_rate_:.2f}"
    )


if __name__ == "__main__":
    main()
