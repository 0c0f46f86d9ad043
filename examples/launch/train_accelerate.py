"""
One fit in several processes, started by accelerate
===================================================

As many processes as ``accelerate config`` was told, or on this machine by hand, with GPUs or, in
spite of its name, without (needs ``pip install accelerate``)::

    accelerate launch --multi_gpu --num_processes 2 examples/launch/train_accelerate.py

``PartialState`` opens the process group and knows the device. ``Accelerator`` does so too; the
classifier needs neither its ``prepare`` nor skorch's ``AccelerateMixin``.
"""

import numpy as np
import torch
from accelerate import PartialState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition


def main() -> None:
    """Fit in all processes; the first one says how good the result is."""
    state = PartialState(cpu=not torch.cuda.is_available())
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)

    classifier = NoisyLabelClassifier(device=state.device, random_state=0)
    classifier.fit(X, y_observed)
    if state.is_main_process:
        accuracy = classifier.score(X_test, y_test)
        n = state.num_processes
        print(f"{n} processes: accuracy {accuracy:.3f}, noise {classifier.noise_rate_:.2f}")
    state.destroy_process_group()


if __name__ == "__main__":
    main()
