"""One stage of training: the order of its rows."""

import numpy as np
from sklearn.datasets import make_blobs

from sknoisy import NoisyLabelClassifier
from sknoisy._net.net import SkorchNet


def test_every_stage_of_every_part_and_every_seed_has_an_order_of_its_own(monkeypatch):
    seeds, train_stage = [], SkorchNet.train_stage

    def record(self, stage, train, valid, *, generator, **params):
        if valid is not None:  # not the last training, of all rows
            seeds.append((stage, generator.initial_seed()))
        return train_stage(self, stage, train, valid, generator=generator, **params)

    monkeypatch.setattr(SkorchNet, "train_stage", record)
    X, y = make_blobs(120, centers=3, random_state=2)
    for random_state in (0, 1):
        NoisyLabelClassifier(
            random_state=random_state,
            hidden_layer_sizes=(4,),
            max_epochs=2,
            transition_init="confusion",
            select_noise_model=False,
        ).fit(X, np.where(np.arange(120) % 5, y, (y + 1) % 3))
    assert [stage for stage, _ in seeds] == 2 * (4 * ["baseline"] + 4 * ["s"])
    assert len({seed for _, seed in seeds}) == len(seeds)
