"""The noise layers: where they start, what they learn, what they keep."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.feature_noise import FeatureTransition
from sknoisy._model.noise_layers import ClassTransition, LabelFactors

TRANSITION = torch.tensor(
    [[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]], dtype=torch.float64
)
OTHER = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)


@pytest.fixture
def hidden():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("learnable", [True, False])
def test_class_noise_starts_where_told(learnable):
    layer = ClassTransition(TRANSITION, learnable=learnable)
    assert_close(layer.transition(), TRANSITION)


def test_class_noise_is_the_same_for_all_rows(hidden):
    layer = ClassTransition(TRANSITION)
    assert_close(layer.transition(hidden), layer.transition())


def test_feature_noise_starts_as_the_class_noise_of_the_same_matrix(hidden):
    transition = FeatureTransition(TRANSITION, n_hidden=4).transition(hidden)
    assert_close(transition, ClassTransition(TRANSITION).transition(hidden).expand(5, 3, 3))


def test_feature_noise_depends_on_the_features_once_it_has_weights(hidden):
    layer = FeatureTransition(TRANSITION, n_hidden=4)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    transition = layer.transition(hidden)
    assert transition.std(dim=0).min() > 0
    assert_close(transition.sum(dim=-1), torch.ones(5, 3, dtype=torch.float64))


def test_one_row_keeps_its_axis(hidden):
    assert FeatureTransition(TRANSITION, n_hidden=4).transition(hidden[:1]).shape == (1, 3, 3)


def test_a_learnable_matrix_is_a_parameter_and_a_fixed_one_a_buffer():
    learnable = ClassTransition(TRANSITION)
    fixed = ClassTransition(TRANSITION, learnable=False)
    assert [name for name, _ in learnable.named_parameters()] == ["bias"]
    assert not list(fixed.parameters())
    assert "bias" in dict(fixed.named_buffers())
    assert not fixed.transition().requires_grad


def test_a_step_moves_the_learnable_matrix_and_keeps_its_rows_stochastic(hidden):
    layer = FeatureTransition(TRANSITION, n_hidden=4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, maximize=True)
    layer.transition(hidden)[:, 0, 1].log().mean().backward()
    optimizer.step()
    transition = layer.transition(hidden)
    assert transition[:, 0, 1].mean() > TRANSITION[0, 1]
    assert_close(transition.sum(dim=-1), torch.ones(5, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (lambda matrix: ClassTransition(matrix), ()),
        (lambda matrix: ClassTransition(matrix, learnable=False), ()),
        (lambda matrix: FeatureTransition(matrix, 4), (torch.ones(2, 4, dtype=torch.float64),)),
    ],
    ids=["learnable", "fixed", "features"],
)
def test_state_makes_the_round_trip(build, arguments):
    layer, copy = build(TRANSITION), build(OTHER)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1)
    assert not torch.equal(layer.transition(*arguments), copy.transition(*arguments))
    copy.load_state_dict(layer.state_dict())
    assert_close(copy.transition(*arguments), layer.transition(*arguments))


def test_state_of_a_fixed_matrix_fits_a_learnable_one():
    layer = ClassTransition(TRANSITION)
    layer.load_state_dict(ClassTransition(OTHER, learnable=False).state_dict())
    assert_close(layer.transition(), OTHER)


@pytest.mark.parametrize("learnable", [True, False])
def test_reset_replaces_the_matrix_in_place(learnable):
    layer = ClassTransition(TRANSITION, learnable=learnable)
    before = layer.bias
    layer.reset_transition(OTHER)
    assert layer.bias is before
    assert layer.bias.requires_grad == learnable
    assert_close(layer.transition(), OTHER)


@pytest.mark.parametrize("layer", [ClassTransition(TRANSITION), FeatureTransition(TRANSITION, 4)])
def test_layers_remember_their_start_and_do_not_learn_it(layer):
    assert_close(layer.start, TRANSITION)
    assert "start" in layer.state_dict()
    assert "start" not in dict(layer.named_parameters())


def test_reset_keeps_the_start():
    layer = ClassTransition(TRANSITION)
    layer.reset_transition(OTHER)
    assert_close(layer.start, TRANSITION)


def test_the_given_matrix_is_never_changed():
    given = TRANSITION.clone()
    layer = ClassTransition(given)
    layer.reset_transition(OTHER)
    with torch.no_grad():
        for changed in (layer, FeatureTransition(given, 2)):
            changed.bias.add_(1.0)
            changed.start.add_(1.0)
    assert_close(given, TRANSITION)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_keep_the_dtype_of_the_matrix(dtype, hidden):
    assert ClassTransition(TRANSITION.to(dtype)).transition().dtype == dtype
    features = FeatureTransition(TRANSITION.to(dtype), 4)
    assert features.transition(hidden.to(dtype)).dtype == dtype


def test_repr_says_how_large_a_layer_is_and_whether_it_learns():
    assert repr(ClassTransition(TRANSITION)) == "ClassTransition(n_classes=3, learnable=True)"
    fixed = ClassTransition(TRANSITION, learnable=False)
    assert repr(fixed) == "ClassTransition(n_classes=3, learnable=False)"
    assert repr(FeatureTransition(TRANSITION, 4)) == "FeatureTransition(n_classes=3, n_hidden=4)"


def test_factors_of_batches_are_joined_row_after_row():
    answers = LabelFactors(torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0, 0, 1]))
    labels = LabelFactors.of_rows(torch.full((2, 2), 2.0), torch.full((2, 2), 3.0))
    joined = LabelFactors.joined([answers, labels, labels], [2, 2, 2])
    assert joined.row.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert joined.clean_log_proba[:, 0].tolist() == [0.0] * 3 + [2.0] * 4
    assert joined.log_column[:, 0].tolist() == [1.0] * 3 + [3.0] * 4


@pytest.mark.parametrize("prior", [0.0, 1.0, 2.5])
def test_an_m_step_goes_part_of_the_way_and_the_likelihood_rises(prior):
    counts = 100 * OTHER.numpy()
    layer = ClassTransition(TRANSITION, learnable=False)
    layer.maximise(counts, prior * counts.sum())
    evidence = counts + prior * counts.sum() / 3 * TRANSITION.numpy()
    closed_form = torch.from_numpy(evidence / evidence.sum(axis=1, keepdims=True))
    assert_close(layer.transition(), TRANSITION + (closed_form - TRANSITION) / (1 + 20 * prior))
    expected = [(evidence * np.log(T.numpy())).sum() for T in (TRANSITION, layer.transition())]
    assert expected[1] > expected[0]


def test_an_m_step_of_annotators_has_its_own_prior_and_goes_all_the_way():
    counts = np.stack([30 * OTHER.numpy(), 20 * TRANSITION.numpy()])
    found = []
    for prior_weight in (0.0, 100.0):
        start, answers = np.stack([TRANSITION.numpy()] * 2), np.array([90, 60])
        layer = AnnotatorTransition(start, answers, annotator_prior=1.0, answer_power=1.0)
        layer.maximise(counts, prior_weight)
        found.append(layer.transitions())
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0][0] - OTHER.numpy()).max() < 0.05
