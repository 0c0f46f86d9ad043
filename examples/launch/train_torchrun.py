"""
One fit in several processes, started by torchrun
=================================================

Two processes on this machine, or eight on each of two machines::

    torchrun --nproc-per-node 2 examples/launch/train_torchrun.py
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d \
        --rdzv-endpoint first-machine:29500 examples/launch/train_torchrun.py

Started with ``python`` it fits in one process. ``--sharded`` gives each process rows of its own.
"""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier, save_model
from sknoisy.noise import corrupt_labels, pair_transition


def main() -> None:
    """Fit in all processes; the first one says how good the result is, and saves it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--save", help="path of the model")
    arguments = parser.parse_args()

    rank, size, device = 0, 1, "cpu"
    if "RANK" in os.environ:  # torchrun and srun set it
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if on_gpu else "gloo")
        rank, size = dist.get_rank(), dist.get_world_size()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)

    classifier = NoisyLabelClassifier(device=device, random_state=0)
    if arguments.sharded:  # as if each process had read files of its own
        X, y_observed = X[rank::size], y_observed[rank::size]
        classifier.set_params(distributed="sharded")
    classifier.fit(X, y_observed)

    if rank == 0:
        accuracy = classifier.score(X_test, y_test)
        print(f"{size} processes: accuracy {accuracy:.3f}, noise {classifier.noise_rate_:.2f}")
        if arguments.save:
            save_model(classifier, arguments.save)
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
