"""Laws of the equations, in double precision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from sknoisy._model import equations as F
from sknoisy._model.feature_noise import FeatureTransition
from sknoisy._model.noise_layers import ClassTransition
from sknoisy._transition import counts as counting

seeds = st.integers(0, 2**31)
class_counts = st.integers(2, 5)
row_counts = st.integers(1, 12)
light = settings(max_examples=25, deadline=None)


class Problem:
    """A random instance of every quantity in the equations."""

    def __init__(self, seed, n_classes=3, n_rows=7, n_hidden=4, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.n_classes = n_classes
        self.logits = normal(n_rows, n_classes)
        self.hidden = normal(n_rows, n_hidden)
        self.weight = normal(n_classes, n_classes, n_hidden)
        self.bias = normal(n_classes, n_classes)
        self.target = torch.randint(n_classes, (n_rows,), generator=generator)
        self.sample_weight = torch.rand(n_rows, generator=generator, dtype=torch.float64).to(dtype)
        self.rows = torch.arange(n_rows)

    @property
    def clean(self):
        return F.clean_log_proba(self.logits)

    @property
    def class_transition(self):
        return F.class_log_transition(self.bias)

    @property
    def feature_transition(self):
        return F.feature_log_transition(self.hidden, self.weight, self.bias)

    def transition(self, kind):
        return self.class_transition if kind == "s" else self.feature_transition


def log_joint(clean, log_transition, target):
    return clean + F.label_log_likelihood(log_transition, target)


def likelihood(clean, log_transition, target):
    return F.noisy_log_likelihood(log_joint(clean, log_transition, target))


def posterior_of(clean, log_transition, target):
    return F.label_posterior(log_joint(clean, log_transition, target))


def arrays(values):
    return [
        value.detach().numpy() if isinstance(value, torch.Tensor) else value for value in values
    ]


def soft_counts(*values):
    return torch.from_numpy(counting.soft_counts(*arrays(values)))


def expected_transition(counts, **params):
    return torch.from_numpy(counting.expected_transition(counts.numpy(), **params))


both_models = pytest.mark.parametrize("kind", ["s", "c"])


def softmax(values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


# --- Oracles: the paper's sums, one Python loop after the other ---------------------------------


@pytest.mark.parametrize("n_rows", [1, 6])
@both_models
def test_every_equation_agrees_with_loops(kind, n_rows):
    problem = Problem(0, n_rows=n_rows)
    k, target = problem.n_classes, problem.target.tolist()
    clean = [softmax(row) for row in problem.logits.tolist()]
    transition = []
    for h in problem.hidden.tolist():
        matrix = []
        for i in range(k):
            scores = problem.bias[i].tolist()
            if kind == "c":
                u = problem.weight[i].tolist()
                scores = [b + sum(map(float.__mul__, u[j], h)) for j, b in enumerate(scores)]
            matrix.append(softmax(scores))
        transition.append(matrix)
    noisy = [
        [sum(transition[t][i][j] * clean[t][i] for i in range(k)) for j in range(k)]
        for t in range(n_rows)
    ]
    joint = [[clean[t][i] * transition[t][i][target[t]] for i in range(k)] for t in range(n_rows)]
    posterior = [[value / sum(row) for value in row] for row in joint]
    counts = [
        [sum(posterior[t][i] for t in range(n_rows) if target[t] == j) for j in range(k)]
        for i in range(k)
    ]
    theta = [[value / sum(row) for value in row] for row in counts]

    p, T, z = problem.clean, problem.transition(kind), problem.target
    close = {"rtol": 1e-10, "atol": 1e-10}
    as_tensor = torch.tensor
    assert_close(p.exp(), as_tensor(clean, dtype=torch.float64), **close)
    assert_close(T.exp().expand(n_rows, k, k), as_tensor(transition, dtype=torch.float64), **close)
    assert_close(F.noisy_log_proba(p, T).exp(), as_tensor(noisy, dtype=torch.float64), **close)
    assert_close(log_joint(p, T, z).exp(), as_tensor(joint, dtype=torch.float64), **close)
    evidence = as_tensor([sum(row) for row in joint], dtype=torch.float64)
    assert_close(likelihood(p, T, z).exp(), evidence, **close)
    c = posterior_of(p, T, z)
    assert_close(c, as_tensor(posterior, dtype=torch.float64), **close)
    found = soft_counts(c, z, k)
    assert_close(found, as_tensor(counts, dtype=torch.float64), **close)
    assert_close(
        expected_transition(found, smallest=0.0),
        as_tensor(theta, dtype=torch.float64),
        **close,
    )


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_weighted_counts_agree_with_loops(seed, k, n):
    problem = Problem(seed, k, n)
    proba, z, w = problem.clean.exp(), problem.target, problem.sample_weight
    counts = torch.zeros(k, k, dtype=torch.float64)
    for t in range(n):
        counts[:, z[t]] += w[t] * proba[t]
    assert_close(soft_counts(proba, z, k, w), counts)


def test_log_volume_is_the_determinant_of_each_matrix():
    transition = 0.2 * Problem(0, 3, 4).feature_transition.exp() + 0.8 * torch.eye(3)
    expected = [math.log(abs(torch.linalg.det(matrix))) for matrix in transition]
    assert_close(F.log_volume(transition), torch.tensor(expected, dtype=torch.float64))
    assert F.log_volume(transition[0]).shape == ()
    assert F.log_volume(transition[:1]).shape == (1,)


# --- Gradients ----------------------------------------------------------------------------------


@given(seed=seeds, k=class_counts, n=row_counts, kind=st.sampled_from("sc"))
@light
def test_gradient_of_the_likelihood_is_the_posterior_weighted_form(seed, k, n, kind):
    problem = Problem(seed, k, n)
    leaves = [problem.logits, problem.bias] + ([problem.weight] if kind == "c" else [])
    for leaf in leaves:
        leaf.requires_grad_()
    p, T, z = problem.clean, problem.transition(kind), problem.target
    observed = T[:, z].T if kind == "s" else T[problem.rows, :, z]
    posterior = posterior_of(p, T, z).detach()

    of_likelihood = torch.autograd.grad(likelihood(p, T, z).sum(), leaves, retain_graph=True)
    of_expectation = torch.autograd.grad((posterior * (p + observed)).sum(), leaves)
    assert_close(of_likelihood, of_expectation)


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_gradient_in_the_logits_is_posterior_minus_prior(seed, k, n):
    problem = Problem(seed, k, n)
    problem.logits.requires_grad_()
    p, T, z = problem.clean, problem.class_transition, problem.target
    (gradient,) = torch.autograd.grad(likelihood(p, T, z).sum(), problem.logits)
    assert_close(gradient, (posterior_of(p, T, z) - p.exp()).detach())


@pytest.mark.parametrize("n_rows", [1, 3])
@both_models
def test_gradients_agree_with_finite_differences(kind, n_rows):
    problem = Problem(1, n_rows=n_rows)
    p, T, z = problem.clean, problem.transition(kind), problem.target
    invertible = 0.1 + 0.2 * T.exp() + 0.5 * torch.eye(problem.n_classes)
    cases = {
        F.clean_log_proba: [problem.logits],
        F.class_log_transition: [problem.bias],
        F.feature_log_transition: [problem.hidden, problem.weight, problem.bias],
        F.noisy_log_proba: [p, T],
        (lambda p, T: log_joint(p, T, z)): [p, T],
        (lambda p, T: likelihood(p, T, z)): [p, T],
        (lambda p, T: posterior_of(p, T, z)): [p, T],
        (lambda T: F.floor_transition(T, 0.01)): [invertible],
        F.log_volume: [invertible],
        F.transition_log_prior: [T, problem.class_transition.exp()],
    }
    for function, inputs in cases.items():
        assert gradcheck(function, [value.detach().clone().requires_grad_() for value in inputs])


# --- Special cases ------------------------------------------------------------------------------


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_with_the_identity_noisy_equals_clean(seed, k, n):
    problem = Problem(seed, k, n)
    p, z = problem.clean, problem.target
    identity = torch.eye(k, dtype=torch.float64).log()
    assert_close(F.noisy_log_proba(p, identity), p)
    assert_close(likelihood(p, identity, z), p[problem.rows, z])
    one_hot = torch.nn.functional.one_hot(z, k).double()
    assert_close(posterior_of(p, identity, z), one_hot)


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_with_a_uniform_matrix_the_posterior_is_the_prior(seed, k, n):
    problem = Problem(seed, k, n)
    uniform = F.class_log_transition(torch.zeros(k, k, dtype=torch.float64))
    assert_close(posterior_of(problem.clean, uniform, problem.target), problem.clean.exp())
    noisy = F.noisy_log_proba(problem.clean, uniform)
    assert_close(noisy, torch.full_like(noisy, -math.log(k)))


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_the_c_model_with_zero_weights_is_the_s_model(seed, k, n):
    problem = Problem(seed, k, n)
    problem.weight.zero_()
    p, z = problem.clean, problem.target
    s, c = problem.class_transition, problem.feature_transition
    assert_close(c, s.expand(n, k, k))
    assert_close(F.noisy_log_proba(p, c), F.noisy_log_proba(p, s))
    assert_close(likelihood(p, c, z), likelihood(p, s, z))
    assert_close(posterior_of(p, c, z), posterior_of(p, s, z))


@given(seed=seeds, k=class_counts, n=row_counts, kind=st.sampled_from("sc"))
@light
def test_relabelling_the_true_classes_commutes_with_every_equation(seed, k, n, kind):
    problem = Problem(seed, k, n)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(k, generator=generator)
    p, T, z = problem.clean, problem.transition(kind), problem.target
    relabelled_p = F.clean_log_proba(problem.logits[:, order])
    problem.bias, problem.weight = problem.bias[order], problem.weight[order]
    relabelled_T = problem.transition(kind)

    assert_close(relabelled_p, p[:, order])
    assert_close(relabelled_T, T[..., order, :])
    assert_close(F.noisy_log_proba(relabelled_p, relabelled_T), F.noisy_log_proba(p, T))
    assert_close(likelihood(relabelled_p, relabelled_T, z), likelihood(p, T, z))
    joint = log_joint(relabelled_p, relabelled_T, z)
    assert_close(joint, log_joint(p, T, z)[:, order])
    posterior = posterior_of(p, T, z)
    relabelled = posterior_of(relabelled_p, relabelled_T, z)
    assert_close(relabelled, posterior[:, order])
    counts = soft_counts(posterior.exp(), z, k)
    relabelled_counts = soft_counts(relabelled.exp(), z, k)
    assert_close(relabelled_counts, counts[order])
    assert_close(expected_transition(relabelled_counts), expected_transition(counts)[order])
    assert_close(F.log_volume(relabelled_T.exp()), F.log_volume(T.exp()))
    start = Problem(seed + 1, k).class_transition.exp()
    assert_close(
        F.transition_log_prior(relabelled_T, start[order]), F.transition_log_prior(T, start)
    )


@given(seed=seeds, k=class_counts, n=row_counts, kind=st.sampled_from("sc"))
@light
def test_relabelling_the_observed_classes_commutes_with_every_equation(seed, k, n, kind):
    problem = Problem(seed, k, n)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    p, T, z = problem.clean, problem.transition(kind), problem.target
    problem.bias, problem.weight = problem.bias[:, order], problem.weight[:, order]
    relabelled_T, relabelled_z = problem.transition(kind), order.argsort()[z]

    assert_close(relabelled_T, T[..., order])
    assert_close(F.noisy_log_proba(p, relabelled_T), F.noisy_log_proba(p, T)[:, order])
    assert_close(likelihood(p, relabelled_T, relabelled_z), likelihood(p, T, z))
    posterior = posterior_of(p, T, z)
    assert_close(posterior_of(p, relabelled_T, relabelled_z), posterior)
    counts = soft_counts(posterior.exp(), z, k)
    relabelled_counts = soft_counts(posterior.exp(), relabelled_z, k)
    assert_close(relabelled_counts, counts[:, order])
    assert_close(expected_transition(relabelled_counts), expected_transition(counts)[:, order])
    assert_close(F.log_volume(relabelled_T.exp()), F.log_volume(T.exp()))
    start = Problem(seed + 1, k).class_transition.exp()
    assert_close(
        F.transition_log_prior(relabelled_T, start[:, order]), F.transition_log_prior(T, start)
    )


@given(seed=seeds, k=class_counts, n=row_counts, kind=st.sampled_from("sc"))
@light
def test_rows_sum_to_one(seed, k, n, kind):
    problem = Problem(seed, k, n)
    p, T, z = problem.clean, problem.transition(kind), problem.target
    posterior = posterior_of(p, T, z)
    transition = expected_transition(soft_counts(posterior, z, k))
    for proba in (p.exp(), T.exp(), F.noisy_log_proba(p, T).exp(), posterior, transition):
        assert_close(proba.sum(dim=-1), torch.ones(proba.shape[:-1], dtype=torch.float64))


@given(seed=seeds, k=class_counts, n=row_counts, kind=st.sampled_from("sc"))
@light
def test_likelihood_is_the_observed_column_of_the_noisy_probabilities(seed, k, n, kind):
    problem = Problem(seed, k, n)
    p, T, z = problem.clean, problem.transition(kind), problem.target
    assert_close(likelihood(p, T, z), F.noisy_log_proba(p, T)[problem.rows, z])


@both_models
def test_a_batch_of_one_keeps_its_axis(kind):
    problem = Problem(0, n_classes=3, n_rows=1)
    p, T, z = problem.clean, problem.transition(kind), problem.target
    assert T.shape == ((3, 3) if kind == "s" else (1, 3, 3))
    for per_class in (
        p,
        F.noisy_log_proba(p, T),
        log_joint(p, T, z),
        posterior_of(p, T, z),
    ):
        assert per_class.shape == (1, 3)
    assert likelihood(p, T, z).shape == (1,)
    assert soft_counts(p.exp(), z, 3).shape == (3, 3)


@both_models
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite_in_value_and_gradient(size, dtype, kind):
    problem = Problem(0, dtype=dtype)
    leaves = [problem.logits, problem.bias, problem.weight]
    for leaf in leaves:
        leaf.mul_(size).requires_grad_()
    p, T, z = problem.clean, problem.transition(kind), problem.target
    posterior = posterior_of(p, T, z)
    values = [
        likelihood(p, T, z),
        F.noisy_log_proba(p, T),
        posterior,
        F.log_volume(T.exp()),
        F.transition_log_prior(T, torch.full((3, 3), 1 / 3, dtype=dtype)),
    ]
    for value in values:
        assert value.isfinite().all()
        assert value.dtype == dtype
        gradients = torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert all(gradient.isfinite().all() for gradient in gradients)


MATRICES = {
    "identity": torch.eye,
    "permutation": lambda k, **dtype: torch.eye(k, **dtype).roll(1, dims=1),
    "one column": lambda k, **dtype: torch.eye(k, **dtype)[:1].repeat(k, 1),
    "uniform": lambda k, **dtype: torch.full((k, k), 1 / k, **dtype),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [2, 50, 1000])
@pytest.mark.parametrize("kind", MATRICES)
def test_zeros_ones_and_singular_matrices_stay_finite_with_extreme_logits(kind, n_classes, dtype):
    generator = torch.Generator().manual_seed(n_classes)
    logits = torch.empty(6, n_classes, dtype=dtype).uniform_(-1e4, 1e4, generator=generator)
    logits.requires_grad_()
    target = torch.randint(n_classes, (6,), generator=generator)
    start = F.floor_transition(MATRICES[kind](n_classes, dtype=dtype), 1e-8)
    layers = [ClassTransition(start), FeatureTransition(start, 2)]
    hidden = torch.empty(6, 2, dtype=dtype).uniform_(-1e4, 1e4, generator=generator)
    for layer in layers if n_classes < 1000 else layers[:1]:
        p = F.clean_log_proba(logits)
        joint = p + layer.label_log_likelihood(target, hidden)
        losses = [
            F.noisy_log_likelihood(joint),
            layer.log_prior(hidden),
            layer.log_volume(hidden),
        ]
        leaves = [logits, *layer.parameters()]
        for loss in losses:
            assert loss.isfinite().all()
            gradients = torch.autograd.grad(
                loss.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            assert all(gradient.isfinite().all() for gradient in gradients)
        # In which order a processor sums is its own affair: each term may be rounded once more.
        rounding = 4 * (n_classes + 4) * torch.finfo(dtype).eps
        for proba in (
            p.exp(),
            layer.transition(hidden),
            layer.noisy_log_proba(p, hidden).exp(),
            F.label_posterior(joint),
        ):
            assert proba.min() >= 0
            assert proba.max() <= 1 + rounding
            assert (proba.double().sum(dim=-1) - 1).abs().max() <= rounding


# --- Weights ------------------------------------------------------------------------------------


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_weight_two_is_the_row_twice_and_weight_zero_no_row(seed, k, n):
    problem = Problem(seed, k, n)
    proba, z = problem.clean.exp(), problem.target
    weight = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    repeated = problem.rows.repeat_interleave(weight)
    assert_close(soft_counts(proba, z, k, weight), soft_counts(proba[repeated], z[repeated], k))


def test_counts_of_many_single_precision_rows_lose_nothing():
    n = 2**24 + 5
    proba = torch.ones(1, 1).expand(n, 1)
    assert soft_counts(proba, torch.zeros(1, dtype=torch.long).expand(n), 1).item() == n


# --- The M-step ---------------------------------------------------------------------------------


@given(seed=seeds, k=class_counts, n=st.integers(1, 40))
@light
def test_m_step_with_one_hot_responsibilities_is_the_normalised_table_of_counts(seed, k, n):
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(k, (n,), generator=generator)
    observed = torch.randint(k, (n,), generator=generator)
    table = torch.zeros(k, k, dtype=torch.float64)
    for i, j in zip(true.tolist(), observed.tolist(), strict=True):
        table[i, j] += 1
    one_hot = torch.nn.functional.one_hot(true, k).double()
    transition = expected_transition(soft_counts(one_hot, observed, k), smallest=0.0)
    for i in range(k):
        if table[i].sum() > 0:
            assert_close(transition[i], table[i] / table[i].sum())
        else:
            assert_close(transition[i], torch.eye(k, dtype=torch.float64)[i])


@given(seed=seeds, k=class_counts, n=row_counts)
@light
def test_m_step_maximises_the_expected_likelihood(seed, k, n):
    problem = Problem(seed, k, n)
    z = problem.target
    posterior = posterior_of(problem.clean, problem.class_transition, z)
    counts = soft_counts(posterior, z, k)
    best = expected_transition(counts)

    def expected_log_likelihood(transition):
        return torch.xlogy(counts, transition).sum()

    others = [problem.class_transition.exp(), Problem(seed + 1, k, n).class_transition.exp()]
    others += [(1 - step) * best + step * other for step in (1e-3, 0.1) for other in others]
    for other in others:
        assert expected_log_likelihood(other) <= expected_log_likelihood(best) + 1e-6


def test_a_true_class_that_was_never_seen_keeps_its_label():
    transition = expected_transition(torch.zeros(3, 3, dtype=torch.float64))
    assert_close(transition, torch.eye(3, dtype=torch.float64), atol=1e-7, rtol=0)
    assert (transition > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_em_on_a_convex_problem_never_lowers_the_likelihood(seed):
    k, n, ridge = 3, 150, 1e-2
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    design = torch.cat([X, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    true = (3 * X @ torch.randn(2, k, generator=generator, dtype=torch.float64)).argmax(dim=1)
    flipped = torch.rand(n, generator=generator) < 0.3
    z = torch.where(flipped, (true + 1) % k, true)
    coefficients = torch.zeros(3, k, dtype=torch.float64)
    transition = F.class_log_transition(Problem(seed).bias + 1.5 * torch.eye(k))

    def clean(coefficients):
        return F.clean_log_proba(design @ coefficients)

    def objective(coefficients, transition):
        fit = likelihood(clean(coefficients), transition, z).sum()
        return (fit - ridge * coefficients.square().sum()).item()

    def fit_network(posterior, coefficients):
        coefficients = coefficients.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([coefficients], max_iter=200, line_search_fn="strong_wolfe")

        def loss():
            optimizer.zero_grad()
            expected = (posterior * clean(coefficients)).sum()
            value = ridge * coefficients.square().sum() - expected
            value.backward()
            return value

        optimizer.step(loss)
        return coefficients.detach()

    values = [objective(coefficients, transition)]
    for _ in range(25):
        posterior = posterior_of(clean(coefficients), transition, z)
        transition = expected_transition(soft_counts(posterior, z, k)).log()
        values.append(objective(coefficients, transition))
        coefficients = fit_network(posterior, coefficients)
        values.append(objective(coefficients, transition))
    steps = torch.tensor(values, dtype=torch.float64).diff()
    assert steps.min() >= -1e-6
    assert values[-1] > values[0] + 1


# --- Edges --------------------------------------------------------------------------------------


@given(seed=seeds, k=class_counts, smallest=st.sampled_from([0.0, 1e-8, 1e-3]))
@light
def test_floored_matrix_is_stochastic_and_above_the_floor(seed, k, smallest):
    generator = torch.Generator().manual_seed(seed)
    transition = torch.eye(k, dtype=torch.float64)[torch.randperm(k, generator=generator)]
    floored = F.floor_transition(transition, smallest)
    assert_close(floored.sum(dim=-1), torch.ones(k, dtype=torch.float64))
    assert floored.min() >= smallest / (1 + k * smallest)
    assert_close(floored, transition, atol=k * smallest + 1e-15, rtol=0)
    assert_close(transition.sum(), torch.tensor(float(k), dtype=torch.float64))


def test_floor_leaves_positive_matrices_as_they_are_for_each_sample():
    transition = Problem(0).feature_transition.exp()
    assert_close(F.floor_transition(transition, 1e-8), transition, rtol=1e-6, atol=1e-9)


def test_floored_zeros_have_a_finite_logarithm_in_single_precision():
    floored = F.floor_transition(torch.eye(3), 1e-8)
    assert floored.log().isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_volume_of_a_singular_matrix_has_finite_value_and_zero_gradient(dtype):
    bias = Problem(0, 3, dtype=dtype).bias.repeat(3, 1, 1)
    bias[0] = 0.0
    bias[1, 2] = bias[1, 1]
    bias[2] = 2 * torch.eye(3)
    bias.requires_grad_()
    volume = F.log_volume(F.class_log_transition(bias).exp())
    assert_close(volume[:2], torch.full((2,), 3 * math.log(0.01), dtype=dtype))
    (gradient,) = torch.autograd.grad(volume.sum(), bias)
    assert gradient.isfinite().all()
    assert (gradient[:2] == 0).all()
    assert (gradient[2] != 0).all()


@given(seed=seeds, k=class_counts)
@light
def test_the_prior_is_largest_where_the_transition_equals_the_start(seed, k):
    start, other = Problem(seed, k).class_transition, Problem(seed + 1, k).class_transition
    at_start = F.transition_log_prior(start, start.exp())
    assert at_start.shape == ()
    assert F.transition_log_prior(other, start.exp()) <= at_start
    per_sample = F.transition_log_prior(torch.stack([start, other]), start.exp())
    assert_close(per_sample[0], at_start)
    assert per_sample.shape == (2,)


@given(seed=seeds, k=class_counts)
@light
def test_the_prior_is_the_evidence_of_one_label_for_each_true_class(seed, k):
    problem = Problem(seed, k)
    start = Problem(seed + 1, k).class_transition.exp()
    one_label_each = torch.xlogy(start, problem.class_transition.exp()).sum() / k
    assert_close(F.transition_log_prior(problem.class_transition, start), one_label_each)


def test_volume_of_the_identity_is_one():
    assert_close(F.log_volume(torch.eye(4)).item(), 0.0)
