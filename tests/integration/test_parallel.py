"""Threads and processes: the same bits as one after the other, and no hang when one dies."""

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from torch.utils.data import DataLoader

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, uniform_transition

X, y = make_blobs(300, n_features=5, centers=3, random_state=0)
y = corrupt_labels(y, uniform_transition(3, 0.2), random_state=0)
METHODS = {
    "plain": {"noise_model": None, "dropout": 0.3},
    "s": {"early_stopping": True, "dropout": 0.3},
    "c": {"noise_model": "c", "early_stopping": True, "select_noise_model": False},
    "em": {"method": "em", "max_em_iter": 3, "early_stopping": True, "select_noise_model": False},
    "loader": {
        "iterator_train": DataLoader,
        "iterator_valid": DataLoader,
        "early_stopping": True,
        "select_noise_model": False,
    },
}


def fit(method):
    params = {"hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0} | METHODS[method]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return NoisyLabelClassifier(**params).fit(X, y)


def digests(estimators):
    """Return a checksum of what each classifier says."""
    return {
        name: hashlib.sha256(
            estimator.predict_noisy_proba(X).tobytes() + estimator.transition_matrix_.tobytes()
        ).hexdigest()
        for name, estimator in estimators.items()
    }


# --- Threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_predictions_in_eight_threads_equal_the_serial_ones(method):
    estimator = fit(method)
    calls = [
        lambda: estimator.predict(X),
        lambda: estimator.predict_proba(X),
        lambda: estimator.predict_noisy_proba(sparse.csr_array(X)),
        lambda: estimator.predict_transition(X[:20]),
        lambda: estimator.label_posterior(X, y),
    ]
    expected = [call() for call in calls]
    state = torch.get_rng_state()
    start = threading.Barrier(8)

    def predict(thread):
        start.wait(60)
        return [[call() for call in calls] for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for rounds in pool.map(predict, range(8)):
            for results in rounds:
                for result, serial in zip(results, expected, strict=True):
                    assert_array_equal(result, serial)
    assert torch.equal(torch.get_rng_state(), state)


def test_predictions_are_the_same_while_another_thread_fits():
    estimator = fit("c")
    expected = estimator.predict_proba(X)
    with ThreadPoolExecutor(4) as pool:
        fits = [pool.submit(fit, "s") for _ in range(2)]
        predictions = [pool.submit(estimator.predict_proba, X) for _ in range(40)]
        for prediction in predictions:
            assert_array_equal(prediction.result(60), expected)
        for fitted in fits:
            assert_array_equal(fitted.result(60).predict_proba(X), fit("s").predict_proba(X))


# --- Processes ----------------------------------------------------------------------------------


def send_digests(given, sender):
    """Send checksums of what is fitted here and of what was pickled elsewhere."""
    sender.send([digests({name: fit(name) for name in METHODS}), digests(pickle.loads(given))])


def run(program, **environment):
    """Run a program in a new interpreter; return what it printed."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=os.environ | environment,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


STARTS = [start for start in ("fork", "spawn") if start in multiprocessing.get_all_start_methods()]


@pytest.fixture(scope="module")
def same_bits():
    """Return whether processes that are started in each way say what this one says."""
    # From an interpreter of its own: threads that other tests have left cannot be forked.
    program = f"""
        import json, multiprocessing, pickle
        import test_parallel as this

        def answer_of(start, given):
            context = multiprocessing.get_context(start)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=this.send_digests, args=(given, sender), daemon=True)
            process.start()
            answer = receiver.recv() if receiver.poll(120) else None
            process.join(60)
            process.kill()
            return answer

        if __name__ == "__main__":
            fitted = {{name: this.fit(name) for name in this.METHODS}}
            given, expected = pickle.dumps(fitted), this.digests(fitted)
            same = {{
                start: answer_of(start, given) == [expected, expected] for start in {STARTS!r}
            }}
            print(json.dumps(same))
        """
    folder = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return json.loads(run(program, PYTHONPATH=folder))


@pytest.mark.parametrize("start", STARTS)
def test_another_process_gives_the_same_bits(start, same_bits):
    assert same_bits[start] is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_after_a_fit_with_threads_does_not_hang():
    program = """
        import multiprocessing, sys
        import torch
        from sklearn.datasets import make_blobs
        from sknoisy import NoisyLabelClassifier

        X, y = make_blobs(3000, n_features=50, centers=3, random_state=0)
        classifier = NoisyLabelClassifier(
            hidden_layer_sizes=(300,), max_epochs=1, transition_init="cluster",
            select_noise_model=False, random_state=0,
        )

        def work():
            classifier.fit(X, y).predict(X)
            assert torch.get_num_threads() == 1

        torch.set_num_threads(2)
        classifier.fit(X, y).predict(X)
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(60)
        hangs = child.is_alive()
        child.kill()
        print("hangs" if hangs else child.exitcode, torch.get_num_threads())
        """
    assert run(program, OMP_NUM_THREADS="2") == "0 2\n"


def test_a_worker_that_is_killed_ends_a_search_with_an_error():
    program = """
        import os, signal
        from joblib.externals.loky.process_executor import TerminatedWorkerError
        from sklearn.datasets import make_blobs
        from sklearn.model_selection import GridSearchCV
        from skorch.callbacks import Callback
        from sknoisy import NoisyLabelClassifier

        class Killed(Callback):
            def on_epoch_end(self, net, **kwargs):
                os.kill(os.getpid(), signal.SIGKILL)

        X, y = make_blobs(60, centers=2, random_state=0)
        classifier = NoisyLabelClassifier(max_epochs=1, random_state=0)
        search = GridSearchCV(classifier, {"callbacks": [[Killed()], None]}, cv=2, n_jobs=2)
        try:
            search.fit(X, y)
        except TerminatedWorkerError as error:
            print(type(error).__name__)
        search.set_params(param_grid={"dropout": [0.0]}, n_jobs=1).fit(X, y)
        """
    assert run(program) == "TerminatedWorkerError\n"
