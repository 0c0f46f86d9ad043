"""The likelihood of rows whose label was checked."""

import pytest
import torch
from torch.testing import assert_close

from sknoisy._model import equations as F
from sknoisy._model.feature_noise import FeatureTransition
from sknoisy._model.loss import Objective, label_factors, log_column
from sknoisy._model.noise_layers import ClassTransition

TRANSITION = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]]).double()
#: Not checked; checked, and its observed label is known; checked, and it is not.
LABELS = {
    "target": torch.tensor([0, 1, 2]),
    "true_label": torch.tensor([-1, 1, 2]),
    "observed_label": torch.tensor([0, 2, -1]),
}


@pytest.fixture
def rows():
    torch.manual_seed(0)
    return F.clean_log_proba(torch.randn(3, 3).double()), torch.randn(3, 4).double()


def test_a_checked_row_is_its_own_likelihood_and_that_of_its_observed_label(rows):
    log_proba, hidden = rows
    loss = Objective().loss(ClassTransition(TRANSITION), log_proba, hidden, **LABELS)
    unchecked = (log_proba[0].exp() @ TRANSITION[:, 0]).log()
    with_both = log_proba[1, 1] + TRANSITION[1, 2].log()
    assert_close(loss, -(unchecked + with_both + log_proba[2, 2]) / 3)


@pytest.mark.parametrize("layer", ["s", "c"])
def test_derivatives_are_those_of_autograd(rows, layer):
    log_proba, hidden = (values.clone().requires_grad_() for values in rows)
    noise = ClassTransition(TRANSITION) if layer == "s" else FeatureTransition(TRANSITION, 4)
    weight = torch.tensor([0.5, 1.0, 1.5]).double()
    objective = Objective(transition_prior=0.5)
    loss = objective.loss(noise, log_proba, hidden, sample_weight=weight, **LABELS)
    parameters = noise.learning()
    expected = torch.autograd.grad(loss, [log_proba, *parameters])
    with torch.no_grad():
        found, by_clean, _, by_parameters = objective.derivatives(
            noise, log_proba, hidden, sample_weight=weight, **LABELS
        )
    assert_close(found, loss.detach())
    assert_close([by_clean, *by_parameters], list(expected))


def test_a_checked_row_judges_by_its_true_label_alone(rows):
    log_proba, hidden = rows
    factors = label_factors(ClassTransition(TRANSITION), log_proba, hidden, **LABELS)
    evidence = (factors.clean_log_proba + factors.log_column).logsumexp(dim=1)
    assert factors.row.tolist() == [0, 1, 2]
    assert_close(evidence[1:], torch.stack([log_proba[1, 1], log_proba[2, 2]]))


def test_a_missing_label_says_nothing():
    column = log_column(ClassTransition(TRANSITION), torch.tensor([-1]), None)
    assert_close(column, torch.zeros(1, 3).double())
