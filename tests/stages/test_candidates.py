"""Which candidate wins, by labels that none of them has seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sknoisy._stages.selection import Candidate, select

NAN = np.nan


def candidate(log_likelihood, stage="s", weight=None, **values):
    made = Candidate(stage, **values)
    made.judge(np.asarray(log_likelihood, dtype=float), weight)
    return made


def likelihoods(seed=0, n=200):
    return -np.random.default_rng(seed).uniform(0.1, 2.0, n)


def test_rows_that_were_not_held_out_do_not_count():
    judged = candidate([NAN, -1.0, NAN, -3.0], weight=np.array([9.0, 1.0, 9.0, 3.0]))
    assert_array_equal(judged.rows, [1, 3])
    assert_array_equal(judged.log_likelihood, [-1.0, -3.0])
    assert_allclose(judged.weight, [0.5, 1.5])


def test_gain_is_the_mean_difference_and_its_standard_error():
    base = likelihoods()
    difference = np.random.default_rng(1).normal(0.1, 0.3, len(base))
    gain, error = candidate(base + difference).gain(candidate(base))
    assert gain == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std() / np.sqrt(len(base)))


def test_gain_and_loss_are_opposite():
    one, other = candidate(likelihoods(0), penalty=0.2), candidate(likelihoods(1), penalty=0.05)
    assert one.gain(other)[0] == pytest.approx(-other.gain(one)[0])
    assert one.gain(other)[1] == pytest.approx(other.gain(one)[1])


def test_a_penalty_comes_off_the_gain():
    base = candidate(likelihoods())
    free, fined = candidate(likelihoods() + 0.1), candidate(likelihoods() + 0.1, penalty=0.03)
    assert free.gain(base)[0] == pytest.approx(0.1)
    assert fined.gain(base)[0] == pytest.approx(0.07)
    assert free.gain(fined)[0] == pytest.approx(0.03)


def test_weight_two_is_the_row_twice_in_the_gain():
    weight = np.random.default_rng(2).integers(1, 4, 200)
    one, other = likelihoods(0), likelihoods(1)
    weights = weight.astype(float)
    weighted = candidate(one, weight=weights).gain(candidate(other, weight=weights))[0]
    repeated = candidate(np.repeat(one, weight)).gain(candidate(np.repeat(other, weight)))[0]
    assert weighted == pytest.approx(repeated)


def test_the_scale_of_the_weights_does_not_matter():
    weight = np.random.default_rng(2).uniform(0.5, 2.0, 200)
    gains = [
        candidate(likelihoods(0), weight=c * weight).gain(
            candidate(likelihoods(1), weight=c * weight)
        )
        for c in (1.0, 1e3)
    ]
    assert_allclose(gains[0], gains[1])


def test_ties_go_to_the_simpler_one():
    same = [candidate(likelihoods(), stage) for stage in ("baseline", "s", "c")]
    assert select(same, 0.0) is same[0]
    assert select(same, 1.64) is same[0]


@pytest.mark.parametrize(("gain", "wins"), [(-0.5, False), (0.01, False), (0.5, True)])
def test_a_later_one_wins_only_by_more_than_its_errors(gain, wins):
    base = likelihoods()
    noise = np.random.default_rng(3).normal(0.0, 1.0, len(base))
    noise -= noise.mean()
    plain, noisy = candidate(base, "baseline"), candidate(base + gain + noise)
    assert (select([plain, noisy], 1.64) is noisy) == wins


def test_a_clear_gain_that_its_penalty_eats_up_does_not_win():
    base = likelihoods()
    plain = candidate(base, "baseline")
    assert select([plain, candidate(base + 0.1, penalty=0.2)], 0.0) is plain
    assert select([plain, candidate(base + 0.1, penalty=0.05)], 0.0) is not plain


def test_the_best_of_three_wins_wherever_it_stands():
    base = likelihoods()
    gains = [0.0, 0.2, 0.4]
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0]):
        made = [candidate(base + gains[i]) for i in order]
        assert select(made, 1.0) is made[order.index(2)]


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 30),
    n_candidates=st.integers(1, 5),
    n_errors=st.sampled_from([0.0, 1.0, 1.64]),
)
def test_what_wins_is_never_worse_than_the_first(seed, n, n_candidates, n_errors):
    rng = np.random.default_rng(seed)
    made = [candidate(rng.normal(-1.0, 0.5, n)) for _ in range(n_candidates)]
    best = select(made, n_errors)
    assert any(best is one for one in made)
    assert best.log_likelihood.mean() >= made[0].log_likelihood.mean()


def test_a_chain_leads_from_the_first_stage_to_the_last():
    first = Candidate("baseline")
    second = Candidate("s", before=first)
    third = Candidate("c", before=second)
    assert third.chain == [first, second, third]
    assert [c.noise_model for c in third.chain] == [None, "s", "c"]
    assert Candidate("em").noise_model == "s"


def test_a_report_says_by_how_much_it_is_better_than_plain_training():
    plain = candidate(likelihoods(), "baseline")
    noisy = candidate(likelihoods() + 0.3, start="mixture", penalty=0.1)
    report = noisy.report(plain)
    assert report["noise_model"] == "s"
    assert report["start"] == "mixture"
    assert report["gain"] == pytest.approx(0.2)
    assert report["log_likelihood"] == pytest.approx(noisy.log_likelihood.mean())
    own = plain.report(plain)
    assert own["noise_model"] is None and own["start"] is None
    assert own["gain"] == own["standard_error"] == 0.0


def test_no_rows_mean_no_gain_and_no_warning():
    nobody = candidate([NAN, NAN])
    assert len(nobody.rows) == 0
