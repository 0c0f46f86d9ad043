"""The estimator: its parameters, the order of fit, and what it predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sknoisy import _functional as F
from sknoisy import _validation
from sknoisy._batching import ArrayBatches, ArrayDataset
from sknoisy._module import build_network
from sknoisy._net import NoiseAdaptationNet
from sknoisy._random import draw_seed, seed_stream, torch_seeded
from sknoisy._training import Observations, Plan, Trainer, summarise


class NoisyLabelClassifier(ClassifierMixin, CallbackSupportMixin, BaseEstimator):
    r"""Classifier that learns from noisily labelled data.

    DOCSTRING
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "module": [nn.Module, callable, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "noise_model": [StrOptions({"s", "c"}), None],
        "method": [StrOptions({"direct", "em"})],
        "transition_init": [StrOptions({"auto", "confusion", "cluster"}), "array-like"],
        "learn_transition": ["boolean"],
        "transition_prior": [Interval(Real, 0, None, closed="left")],
        "volume_penalty": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [callable],
        "iterator_train": [callable, None],
        "iterator_valid": [callable, None],
        "device": [str, torch.device],
        "compile": ["boolean"],
        "callbacks": [list, tuple, None],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "max_em_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module: nn.Module | Callable[..., nn.Module] | None = None,
        *,
        hidden_layer_sizes: Sequence[int] = (100,),
        dropout: float = 0.0,
        noise_model: str | None = "s",
        method: str = "direct",
        transition_init: str | Any = "auto",
        learn_transition: bool = True,
        transition_prior: float = 1.0,
        volume_penalty: float = 0.0,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        lr: float = 1e-3,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        iterator_train: Callable[..., Any] | None = None,
        iterator_valid: Callable[..., Any] | None = None,
        device: str | torch.device = "cpu",
        compile: bool = False,
        callbacks: Sequence[Any] | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        max_em_iter: int = 40,
        tol: float = 1e-3,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 4,
        class_weight: dict[Any, float] | str | None = None,
        random_state: Any = None,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.noise_model = noise_model
        self.method = method
        self.transition_init = transition_init
        self.learn_transition = learn_transition
        self.transition_prior = transition_prior
        self.volume_penalty = volume_penalty
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.iterator_train = iterator_train
        self.iterator_valid = iterator_valid
        self.device = device
        self.compile = compile
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.verbose = verbose
        self.max_em_iter = max_em_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.random_state = random_state
        vars(self).update(kwargs)

    # Parameters of parts, "module__width" and the like

    def _routed(self) -> dict[str, Any]:
        """Keyword arguments of the constructor that are no parameters of its own."""
        own = self._get_param_names()
        return {
            name: value
            for name, value in vars(self).items()
            if name not in own and not name.startswith("_") and not name.endswith("_")
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of parts (``module__width``) included.

        Parameters
        ----------
        deep : bool, default=True
            Whether the parameters of nested estimators are listed as well.

        Returns
        -------
        dict
        """
        return super().get_params(deep=deep) | self._routed()

    def set_params(self, **params: Any) -> NoisyLabelClassifier:
        """Set parameters, those of parts (``module__width``) included.

        Parameters
        ----------
        **params
            New values by name.

        Returns
        -------
        NoisyLabelClassifier
            The estimator itself.
        """
        routed = {k: v for k, v in params.items() if "__" in k or k in self._routed()}
        super().set_params(**{k: v for k, v in params.items() if k not in routed})
        vars(self).update(routed)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    # Training

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NoisyLabelClassifier:
        """Learn network and noise from observed labels.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)
            The data: two-dimensional, or of any rank that `module` takes.
        y : array-like of shape (n_samples,)
            The observed labels, of any type that scikit-learn takes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; a row of weight 2 counts as two rows, a row of weight 0 as none.

        Returns
        -------
        NoisyLabelClassifier
            The fitted estimator itself.
        """
        self._check_combinations()
        data, classes = self._observe(X, y, sample_weight)
        plan = self._plan(data, classes)
        stream = seed_stream(self.random_state)
        with torch_seeded(draw_seed(stream), self.device):
            net = self._build_net(data, classes)
            trainer = Trainer(net, data, plan, stream, self._epochs(net, X, y))
            trainer.run()
            prior, transition = summarise(net, data)
        self._log_weight = self._log_class_weight(data, classes)
        return self._store(net, classes, prior, transition, trainer.initial_transition)

    def _check_combinations(self) -> None:
        """Refuse parameters that exclude each other."""
        _validation.check_routed(self._routed())
        if self.noise_model == "c" and self.method == "em":
            raise ValueError(
                "method='em' needs noise_model='s', got noise_model='c': the closed form of its "
                "update holds for noise that ignores the features. Use method='direct'."
            )
        if not self.learn_transition and (
            isinstance(self.transition_init, str) or self.noise_model != "s"
        ):
            raise ValueError(
                "learn_transition=False needs noise_model='s' and the known matrix as "
                f"`transition_init`; got noise_model={self.noise_model!r} and "
                f"transition_init={self.transition_init!r}."
            )

    def _observe(self, X: Any, y: Any, sample_weight: Any) -> tuple[Observations, np.ndarray]:
        """Validate and encode the training data; return it with the sorted classes."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        X = _validation.check_features(self, X, reset=True)
        y = _validation.check_labels(y, X)
        weight = _validation.check_weights(sample_weight, X)
        if weight is not None and not weight.all():
            rows = np.flatnonzero(weight)
            X, y, weight = X[rows], y[rows], weight[rows]
        classes, target = np.unique(y, return_inverse=True)
        _validation.check_two_classes(classes)
        if weight is not None:
            weight = weight / weight.mean()
        double = X.dtype == np.float64 and torch.device(self.device).type == "cpu"
        dtype = torch.float64 if double else torch.float32
        return Observations(X, target, weight, len(classes), dtype), classes

    def _plan(self, data: Observations, classes: np.ndarray) -> Plan:
        """Resolve what depends on the size of the data."""
        init = self.transition_init
        if not isinstance(init, str):
            init = _validation.check_transition_matrix(init, len(classes), "transition_init")
        return Plan(
            noise_model=self.noise_model,
            method=self.method,
            transition_init=init,
            learn_transition=self.learn_transition,
            max_epochs=self._max_epochs(len(data)),
            max_em_iter=self.max_em_iter,
            tol=self.tol,
            early_stopping=self._stops_early(len(data)),
            validation_fraction=self.validation_fraction,
            n_iter_no_change=self.n_iter_no_change,
        )

    def _max_epochs(self, n_samples: int) -> int:
        if self.max_epochs != "auto":
            return self.max_epochs
        return 40 if n_samples > 256 else 150

    def _batch_size(self, n_samples: int) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        return 256 if n_samples <= 256 else int(np.clip(n_samples // 20, 64, 256))

    def _stops_early(self, n_samples: int) -> bool:
        return n_samples >= 2000 if self.early_stopping == "auto" else self.early_stopping

    def _build_net(self, data: Observations, classes: np.ndarray) -> NoiseAdaptationNet:
        """Return a net around a new network, or around a copy of the fitted one to go on with."""
        resume = self.warm_start and hasattr(self, "net_")
        if resume:
            if not np.array_equal(classes, self.classes_):
                raise ValueError(
                    "warm_start=True needs the classes of the first fit, "
                    f"{self.classes_.tolist()!r}; got {classes.tolist()!r}."
                )
            network = copy.deepcopy(self.net_.network).to(data.dtype)
        else:
            sample, _ = data.dataset().take(slice(0, 2))
            network = build_network(
                self.module,
                self._params_of("module"),
                sample["X"] if isinstance(sample, dict) else sample,
                data.n_classes,
                hidden_layer_sizes=self.hidden_layer_sizes,
                dropout=self.dropout,
            )
        parts = {k: v for k, v in self._routed().items() if not k.startswith("module__")}
        net = NoiseAdaptationNet(
            network,
            classes=np.arange(data.n_classes),
            volume_penalty=self.volume_penalty,
            transition_prior=self.transition_prior,
            iterator_train=self.iterator_train or ArrayBatches,
            iterator_valid=self.iterator_valid or ArrayBatches,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=self._batch_size(len(data)),
            device=self.device,
            compile=self.compile,
            callbacks=None if self.callbacks is None else list(self.callbacks),
            verbose=self.verbose,
            **parts,
        ).initialize()
        if resume:
            net.history.extend(self.net_.history)
        return net

    def _log_class_weight(self, data: Observations, classes: np.ndarray) -> np.ndarray:
        """Return logarithms of the class weights."""
        weight = compute_class_weight(
            self.class_weight, classes=classes, y=classes[data.target], sample_weight=data.weight
        )
        return np.log(np.maximum(weight, np.finfo(np.float64).tiny))

    def _params_of(self, prefix: str) -> dict[str, Any]:
        start = f"{prefix}__"
        return {k.removeprefix(start): v for k, v in self._routed().items() if k.startswith(start)}

    def _epochs(
        self, net: NoiseAdaptationNet, X: Any, y: Any
    ) -> Callable[[str, int], Iterator[None]]:
        """Return a loop over epochs that tells scikit-learn's callbacks of each."""
        root = self._init_callback_context(max_subtasks=None)
        hooks = {"estimator": self, "X": X, "y": y}
        root.call_on_fit_task_begin(**hooks)
        if not hasattr(self, "_skl_callbacks"):
            return lambda stage, max_epochs: iter([None] * max_epochs)

        def epochs(stage: str, max_epochs: int) -> Iterator[None]:
            task = root.subcontext(task_name=stage, max_subtasks=max_epochs)
            task.call_on_fit_task_begin(**hooks)
            for _ in range(max_epochs):
                epoch = task.subcontext(task_name="epoch").call_on_fit_task_begin(**hooks)
                yield
                if epoch.call_on_fit_task_end(**hooks):
                    break
            task.call_on_fit_task_end(**hooks)

        return epochs

    def _store(
        self,
        net: NoiseAdaptationNet,
        classes: np.ndarray,
        prior: np.ndarray,
        transition: np.ndarray,
        initial_transition: np.ndarray,
    ) -> NoisyLabelClassifier:
        net.forget_training()
        self.net_ = net
        self.classes_ = classes
        self.class_prior_ = prior
        self.transition_matrix_ = transition
        self.initial_transition_matrix_ = initial_transition
        self.noise_rate_ = float(prior @ (1.0 - np.diag(transition)))
        self.history_ = net.history
        self.n_iter_ = len(net.history)
        return self

    # Prediction

    def predict(self, X: Any) -> np.ndarray:
        """Predict the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the true label, ``p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the probabilities of the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        dataset = self._dataset(X)
        log_proba = self.net_.clean_log_proba(dataset).double()
        return F.clean_log_proba(log_proba + torch.from_numpy(self._log_weight)).numpy()

    def predict_noisy_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the observed label, ``p(z=j|x) = sum_i p(z=j|y=i[,x]) p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        batches = self._batch_log_probas(self._dataset(X))
        return torch.cat([F.noisy_log_proba(*batch).exp() for batch in batches]).numpy()

    def predict_transition(self, X: Any) -> np.ndarray:
        """Transition matrix of each sample, ``p(z=j|y=i[,x])``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, true, observed)
            Unless ``noise_model="c"``, a read-only view of the one matrix of all samples.
        """
        dataset = self._dataset(X)
        batches = [transition for _, transition in self._batch_log_probas(dataset)]
        if batches[0].ndim == 2:
            return np.broadcast_to(batches[0].exp().numpy(), (len(dataset), *batches[0].shape))
        return torch.cat(batches).exp().numpy()

    def label_posterior(self, X: Any, y: Any) -> np.ndarray:
        """Posterior of the true label, given the features and the observed label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            Observed labels, all of them seen in fit.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Element (t, i) is the probability that the true label of row t is ``classes_[i]``.
        """
        dataset = self._dataset(X)
        target = torch.from_numpy(
            _validation.encode_labels(_validation.check_labels(y, dataset.data), self.classes_)
        )
        posterior, start = [], 0
        for clean, transition in self._batch_log_probas(dataset):
            observed = target[start : start + len(clean)]
            posterior.append(F.label_posterior(clean, transition, observed))
            start += len(clean)
        return torch.cat(posterior).numpy()

    def _dataset(self, X: Any) -> ArrayDataset:
        check_is_fitted(self)
        X = _validation.check_features(self, X, reset=False)
        return ArrayDataset(X, dtype=next(self.net_.network.head.parameters()).dtype)

    def _batch_log_probas(self, dataset: ArrayDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised log-probabilities of true label and transition, in float64."""
        for clean, transition in self.net_.batch_outputs(dataset):
            if transition is None:
                transition = torch.eye(len(self.classes_), dtype=torch.float64).clamp_min(1e-300).log()
            yield F.clean_log_proba(clean.double()), F.class_log_transition(transition.double())
