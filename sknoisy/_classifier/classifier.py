"""The estimator: its parameters, the order of fit, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import nn

from sknoisy._classifier.building import (
    build_net,
    check_parameters,
    net_of_stream,
    resolve_config,
)
from sknoisy._classifier.parameters import RoutedParamsMixin
from sknoisy._classifier.persistence import VersionedMixin
from sknoisy._classifier.prediction import PredictionMixin
from sknoisy._classifier.rollback import restore_on_error
from sknoisy._data.training_data import TrainingData
from sknoisy._distributed.group import ALONE, same_generator
from sknoisy._distributed.joining import current_group
from sknoisy._distributed.rows import rows_of_process, training_data_of_all
from sknoisy._model.network import MLP
from sknoisy._net.net import SkorchNet
from sknoisy._net.progress import fit_progress
from sknoisy._net.summary import summarise_annotators, summary
from sknoisy._stages.stages import TrainingConfig
from sknoisy._support.random import new_rng, seeded
from sknoisy._support.torch_state import plain_torch
from sknoisy._training.fitting import train, warn_of_unreliable_fit
from sknoisy._training.stream import Stream, fit_chunk, stream_classes, supports_partial_fit


class NoisyLabelClassifier(
    VersionedMixin, PredictionMixin, ClassifierMixin, CallbackSupportMixin, RoutedParamsMixin
):
    r"""Neural network classifier that learns from noisily labelled data.

    A network is trained on the observed labels, with a noise layer on top that models how true
    labels turned into observed ones. Both are learned together, without clean labels. At
    prediction time the noise layer is removed: `predict` estimates the true label, and
    `transition_matrix_` is the estimated noise.

    Parameters
    ----------
    module : nn.Module class, factory or instance, default=None
        The hidden layers: maps a batch to a tensor of shape (n, n_hidden). The softmax layer
        and the noise layer are put on top, so the module need not know the number of classes.
        None is a multilayer perceptron of `hidden_layer_sizes` with ReLU and `dropout`. An
        instance is copied, never trained in place.
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of the hidden layers of the default network.
    dropout : float or "auto", default=0.0
        Share of hidden units of the default network that is dropped in training. "auto" tries 0,
        .25 and .5, in this order, until a larger one explains unseen observed labels no better,
        and takes two to three times as long. It is 0 where there is no such choice: in a stream
        that begins, with several answers a row, and where labels were checked.
    n_networks : int, default=1
        How many default networks are averaged. The others are trained, from other weights, as the
        one that was chosen; the result is one network with the units of all, which averages their
        logits, and has one matrix, the mean of theirs. A fit takes about so many times as long,
        less what the choice takes.
    noise_model : {"s", "c", "auto"} or None, default="s"
        What the observed label depends on. "s": on the true class only, the choice for most
        data. "c": also on the features; k * k * n_hidden more weights, for noise that sits in
        a part of the feature space. None: plain training, the labels are assumed correct. "auto":
        the one of these that explains unseen observed labels best, where "s" must be clearly better
        than None, and "c" than both. It leaves out "c" where that has more than 20 weights a row,
        and is "s" with several answers a row and in a stream that begins. A stream after `fit` goes
        on with what was chosen.
    method : {"direct", "em"}, default="direct"
        "direct" trains network and noise layer together by stochastic gradient descent. "em"
        alternates posteriors of the true labels, an update of the matrix towards its closed
        form, and an epoch of the network on soft targets; for ``noise_model="s"`` only.
    transition_init : {"auto", "confusion", "hard_confusion", "cluster"} or array, default="auto"
        Where the noise layer starts, which decides what it finds.

        - "auto" lets several estimates compete by the likelihood of held-out labels, all from
          predictions for rows that the network did not learn from: a matrix that explains the
          labels beside calibrated predictions, a mixture with label noise, and, with early
          stopping, counts of predicted against observed classes and errors that are spread evenly.
        - "cluster" takes histograms of the observed labels in k clusters of the predictions.
        - "confusion" is the paper's formula, averages of the probabilities of the baseline. It is
          blurred, and fails at heavy noise.
        - "hard_confusion" counts the arg max of the baseline instead, on all training rows, those
          that are held out included; the c-model starts from the counts of the trained s-model.
          So does the authors' public code [3]_, from which the published figures come.
        - An array of shape (n_classes, n_classes) is a known or supposed matrix: rows are true
          classes, columns observed ones, both in the order of `classes_`. With several answers a
          row also (n_annotators, n_classes, n_classes), in the order of `annotators_`.

        "auto" and "cluster" estimate the noise among the classes with at least 10 observed labels.
        Other classes are assumed to be labelled correctly, and so are all with fewer than 64 rows.
    learn_transition : bool, default=True
        False keeps the matrix given as `transition_init` fixed and only trains the network
        through it (forward correction).
    transition_prior : float, default=1.0
        How much the start counts as evidence against the training data: a Dirichlet prior
        around it that is worth so many times the training rows. It keeps the matrix from
        drifting to the identity while the network memorises wrong labels; with EM the matrix
        moves the more slowly the larger it is. 0 is the published method.
    select_noise_model : bool, default=True
        Whether the noise model has to explain the observed labels of held-out rows clearly better
        than the same network without one; otherwise the result is that of ``noise_model=None``.
        Hard data, where many predictions are wrong, are told from noisy data in this way. An
        s-model that fails this test is kept all the same if the c-model trained from it passes a
        stricter one, and where the held-out rows leave it open, others are held out as well. False
        keeps the noise model in any case, as the published method does.
    volume_penalty : float, default=0.0
        Weight of ``log |det T|`` in the loss of direct training. It prefers the matrix of least
        volume: more noise in the matrix, and sharper clean probabilities.
    n_noise_targets : int or None, default=None
        How many observed classes each true class can turn into, itself included: the likeliest
        ones at the start of the noise layer. None is all. With many classes it makes the noise
        layer small (the paper keeps 5 of 100); a label that is left out counts as one of
        probability 1e-8.
    max_epochs : int or "auto", default="auto"
        Maximum number of epochs of one stage. "auto" is as many as 20,000 steps need, at least 40,
        so that training ends because held-out labels are explained no better. Below 64 rows, where
        no rows can be held out, it is 150.
    batch_size : int or "auto", default="auto"
        Rows per step. "auto" is a twentieth of the rows, at least 64 and at most 256; up to 256
        rows it is all of them.
    lr : float, default=1e-3
        Learning rate.
    optimizer : torch optimiser class, default=torch.optim.Adam
        Set its other parameters as ``optimizer__name``.
    iterator_train, iterator_valid : iterator class, default=None
        Classes that replace ``torch.utils.data.DataLoader``; None takes batches straight
        from arrays, and by a ``DataLoader`` from data sets. Parameters are set as
        ``iterator_train__name``.
    device : str or torch.device, default="cpu"
        Device to compute on.
    compile : bool, default=False
        Whether to compile the network with ``torch.compile``.
    callbacks : list of skorch callbacks, default=None
        Instances, classes, or (name, callback) tuples; copied for every stage.
    warm_start : bool, default=False
        Whether fit continues from the network and the noise layer of the last fit.
    verbose : int, default=0
        1 prints a table of the epochs.
    max_em_iter : int or "auto", default="auto"
        Maximum number of iterations of EM, each with one epoch of the network. "auto" is
        `max_epochs`.
    tol : float, default=1e-4
        EM stops when the mean log-likelihood of the observed labels changes by less.
    missing_label : int, float, str or None, default=-1
        Where there are several answers a row, what stands in y for an answer that was not given;
        None, NaN and the like do in any case.
    annotator_prior : float or "auto", default="auto"
        How many answers of each true class the matrix of all annotators together counts in the
        estimate of that of each annotator, a Dirichlet prior. "auto" chooses by unseen answers.
    answer_power : float or "auto", default="auto"
        Exponent of the answers of a row: 1 if annotators err independently of each other, smaller
        if they err on the same rows, where several answers say less. "auto" chooses by unseen
        answers.
    early_stopping : bool or "auto", default="auto"
        True holds out rows, stops a stage when the likelihood of their observed labels stops
        rising, and puts the weights of its best epoch back. The likelihood is that of calibrated
        predictions, "calibrated_valid_loss" in `history_`. False trains `max_epochs` epochs. "auto"
        holds out rows from 2000 rows on. With fewer rows each half, and below 1000 rows each
        quarter, is held out in turn until its likelihood stops rising. The last training is on
        all rows, for 0.71 or 0.87 times as many epochs, the root of the share of the rows.
    validation_fraction : float, default=0.1
        Share of the rows to hold out, stratified by the observed label.
    n_iter_no_change : int, default=4
        Epochs without a better held-out likelihood after which a stage stops.
    class_weight : dict or "balanced", default=None
        Weights of the true classes in the prediction, ``w_i p(y=i|x)`` up to a constant: what
        training on clean labels with such weights converges to. "balanced" weighs by the
        inverse frequency of the observed labels. The transition matrix does not depend on it.
    on_interrupt : {"raise", "keep"}, default="raise"
        What Ctrl-C in `fit` does. "raise" puts the estimator back as it was before and raises
        KeyboardInterrupt: in a script nothing half trained goes on as if it were trained. "keep"
        keeps the best weights so far and warns that the fit is not complete: those of the
        epoch with the lowest loss of held-out rows (of the joint training, unless it is not yet
        as good as the baseline) or, without held-out rows, of the last epoch. Weights of the
        baseline have no noise model.
    distributed : {"auto", "sharded"} or False, default="auto"
        What happens when a default process group of ``torch.distributed`` is initialised, as by
        torchrun or ``accelerate launch``. "auto" trains one network in all its processes: each
        calls `fit` with the same rows and computes a part of each batch. With "sharded" each passes
        rows of its own, to the same effect as all rows in each. `batch_size` rows of each process
        make a step; "auto" stands for as many rows a step as in one process. False trains in this
        process alone, as without a group.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the order of the rows, the held-out rows and dropout. The global
        generators of numpy and torch are left as they were.
    **kwargs
        Parameters of the parts: ``module__*``, ``optimizer__*``, ``iterator_train__*``,
        ``iterator_valid__*`` and ``callbacks__*``, as in skorch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    dropout_ : float or None
        The share of dropout that was chosen, or given; None with a `module`.
    noise_model_ : {"s", "c"} or None
        The noise model that was kept. None if the labels of held-out rows are explained as well
        without one, or if there are too few rows or labels to tell.
    selection_ : list of dict
        What was compared, plain training first: "noise_model", "start" of the noise layer,
        "log_likelihood" of an observed label of a row that was held out from it, and "gain" over
        plain training on the same rows with its "standard_error", and "dropout" if that was chosen.
        With ``noise_model="s"``, models that were trained only to test it come after it. So does
        plain training that went on, for the comparison, where `max_epochs` had ended it. Empty if
        nothing was compared. Where labels were checked, the first is plain training on the others,
        the start "trusted_only" is training on checked rows alone, and "trusted_weight" says how
        often an epoch goes over them, if more than once.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        Row i is the distribution of the observed label when the true class is ``classes_[i]``.
        For ``noise_model="c"`` the average over the training data, weighted with the clean
        probabilities; the identity without a noise model.
    initial_transition_matrix_ : ndarray of shape (n_classes, n_classes)
        Where the noise layer started.
    class_prior_ : ndarray of shape (n_classes,)
        Mean clean probability of the training data.
    noise_rate_ : float
        Expected share of rows whose observed label is not the true one. NaN while `partial_fit`
        has not estimated the noise.
    history_ : skorch.history.History
        A row for each epoch: stage, train_loss, valid_loss, dur, and log_likelihood in EM. Where
        labels were checked, stage "observed" is a baseline without them and "trusted" a training on
        them alone.
    n_iter_ : int
        Number of epochs of all stages.
    annotators_ : ndarray of shape (n_annotators,)
        Who gave answers. This attribute and the next six are there after a fit to answers, y of
        shape (n_samples, n_columns) or with `annotators`.
    annotator_transitions_ : ndarray of shape (n_annotators, n_classes, n_classes)
        The matrix of each annotator, (annotator, true, observed). ``transition_matrix_`` is their
        mean, weighted by answers. With ``noise_model=None`` they come from counts against the
        majority.
    annotator_quality_ : ndarray of shape (n_annotators,)
        Estimated share of right answers of each annotator.
    annotator_quality_error_ : ndarray of shape (n_annotators,)
        Standard errors of `annotator_quality_`.
    annotator_answer_counts_ : ndarray of shape (n_annotators,)
        Number of answers of each annotator.
    annotator_prior_, answer_power_ : float
        What was chosen, or given.
    n_features_in_ : int
        Number of features, ``X.shape[1]``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when X had names that are all strings.
    net_ : skorch.NeuralNetClassifier
        The net, trimmed to what prediction needs.

    See Also
    --------
    sknoisy.noise.corrupt_labels : Corrupt clean labels, to try a method out.
    sknoisy.metrics.noisy_log_likelihood_scorer : Select parameters on noisy labels.

    Notes
    -----
    The s-model explains the observed label z by

    .. math:: p(z=j \mid x) = \sum_i p(z=j \mid y=i)\, p(y=i \mid x),

    and the c-model lets the first factor depend on x too [1]_. The stages are: a baseline on the
    observed labels; the start of the noise layer; joint training of the s-model; for "c", joint
    training of the c-model from there. The baseline serves to find the start, and to judge the
    noise model by; the joint training then starts over from new weights, as the baseline has
    learned wrong labels too. It keeps those of the baseline for "confusion" and "hard_confusion",
    as the paper does, and when the best epoch of the baseline came in the second half of
    `max_epochs`, so that new weights would need more.
    Without early stopping each half of the rows, or each quarter of fewer than 1000 or of few of
    each class, is held out in turn from each stage to judge it, before the stage is trained on all
    of them. From 2000 rows on one half judges.

    With several answers a row, each annotator has a matrix of its own,

    .. math:: p(z_1, \ldots, z_m \mid x) = \sum_i p(y=i \mid x) \prod_a (T^a_{i z_a})^\gamma,

    shrunk towards that of all annotators; it needs ``noise_model="s"``, or None for the label of
    the majority. The matrices start from the answers alone [2]_, and again from what the network of
    this start predicts. They follow in closed form, once an epoch. Where no row has more than one
    answer, the network is that of one label a row.

    A row whose label was checked, `trusted`, enters as :math:`\log p(y \mid x)`, with
    :math:`\log p(z \mid y)` of its observed label where that is known. The baseline does not see
    it. Counts of what the baseline predicts of such rows [4]_ are one of the starts, and name the
    classes of the others. Up to fifty checked rows, at most half, judge the candidates; the one
    that is kept is then trained with all of them.

    The c-model is trained from each s-model that was compared, not from the best one only: where
    noise follows the features, the s-model explains labels no better than no noise model does,
    from any start, and the c-model from the right one does.

    The default network standardises its input: each column is centred and divided by its standard
    deviation, or by a fifth of its range if that is more. A module of your own gets X as it is.

    If the result is worth little, fit warns with `sknoisy.exceptions.UnreliableFitWarning`.

    A row of weight 2 is the same as the row twice: to the last digits below 64 rows, and in
    expectation otherwise, where batches and held-out rows are drawn.

    References
    ----------
    .. [1] J. Goldberger and E. Ben-Reuven, "Training deep neural-networks using a noise
       adaptation layer", ICLR 2017.
    .. [2] A. P. Dawid and A. M. Skene, "Maximum likelihood estimation of observer error-rates using
       the EM algorithm", Applied Statistics 28, 1979.
    .. [3] E. Ben-Reuven, https://github.com/udibr/noisy_labels, 2017.
    .. [4] D. Hendrycks, M. Mazeika, D. Wilson and K. Gimpel, "Using trusted data to train deep
       networks on labels corrupted by severe noise", NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(random_state=0).fit(X, y_observed)
    >>> bool(classifier.score(X_test, y_test) > 0.9)
    True
    >>> round(classifier.noise_rate_, 1)
    0.4
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "module": [nn.Module, callable, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "n_networks": [Interval(Integral, 1, None, closed="left")],
        "noise_model": [StrOptions({"s", "c", "auto"}), None],
        "method": [StrOptions({"direct", "em"})],
        "transition_init": [
            StrOptions({"auto", "confusion", "hard_confusion", "cluster"}),
            "array-like",
        ],
        "learn_transition": ["boolean"],
        "transition_prior": [Interval(Real, 0, None, closed="left")],
        "select_noise_model": ["boolean"],
        "volume_penalty": [Interval(Real, 0, None, closed="left")],
        "n_noise_targets": [Interval(Integral, 1, None, closed="left"), None],
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
        "max_em_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "missing_label": [Real, str, None],
        "annotator_prior": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "answer_power": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="right")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "on_interrupt": [StrOptions({"raise", "keep"})],
        "distributed": [StrOptions({"auto", "sharded"}), Options(bool, {False})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module: nn.Module | Callable[..., nn.Module] | None = None,
        *,
        hidden_layer_sizes: Sequence[int] = (100,),
        dropout: float | str = 0.0,
        n_networks: int = 1,
        noise_model: str | None = "s",
        method: str = "direct",
        transition_init: str | Any = "auto",
        learn_transition: bool = True,
        transition_prior: float = 1.0,
        select_noise_model: bool = True,
        volume_penalty: float = 0.0,
        n_noise_targets: int | None = None,
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
        max_em_iter: int | str = "auto",
        tol: float = 1e-4,
        missing_label: Any = -1,
        annotator_prior: float | str = "auto",
        answer_power: float | str = "auto",
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 4,
        class_weight: dict[Any, float] | str | None = None,
        on_interrupt: str = "raise",
        distributed: str | bool = "auto",
        random_state: Any = None,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.n_networks = n_networks
        self.noise_model = noise_model
        self.method = method
        self.transition_init = transition_init
        self.learn_transition = learn_transition
        self.transition_prior = transition_prior
        self.select_noise_model = select_noise_model
        self.volume_penalty = volume_penalty
        self.n_noise_targets = n_noise_targets
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
        self.missing_label = missing_label
        self.annotator_prior = annotator_prior
        self.answer_power = answer_power
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.on_interrupt = on_interrupt
        self.distributed = distributed
        self.random_state = random_state
        self.__dict__.update(kwargs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    # Training

    @restore_on_error
    @plain_torch()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        annotators: Any = None,
        trusted: Any = None,
        noisy_label: Any = None,
    ) -> NoisyLabelClassifier:
        """Learn network and noise from observed labels.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)
            Two-dimensional, or of any rank that `module` takes. A map-style data set of torch, an
            `IndexableDataset`, or a dict or tuple of arrays go to `module` as the user guide says.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            Observed labels, of any type that scikit-learn takes; None takes those of the items of
            a data set, and is refused with arrays. With several columns they are
            answers of annotators, a column for each of them or as `annotators` says. Rows without
            an answer have no part in the likelihood, and are left out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; a row of weight 2 counts as two rows, a row of weight 0 as none.
        annotators : array-like of the shape of y, default=None
            Who gave each answer, so that y needs as many columns only as the row with the most
            answers has. None: the columns of y are the annotators.
        trusted : array-like of bool of shape (n_samples,), or of the shape of y, default=None
            Which labels were checked: y holds the true label there. Such a row enters as
            ``log p(y|x)`` and says nothing of the noise. With several answers a row, all answers of
            a checked row must say the same; or mark the checked answers in an array of the shape of
            y, and the others of the row remain evidence of how their annotators err.
        noisy_label : array-like of shape (n_samples,), default=None
            With one label a row, what was observed of the checked rows before, where that is known,
            and missing (None, NaN or `missing_label`) elsewhere: evidence of the noise, as
            ``log p(z|y)``.

        Returns
        -------
        NoisyLabelClassifier
            The fitted estimator itself.

        Raises
        ------
        MemoryError
            If the weights of the c-model cannot be trained in the memory there is.
        """
        group = current_group()
        check_parameters(self, X, group)
        warm = self.warm_start and hasattr(self, "net_")
        data = training_data_of_all(
            group,
            self,
            X,
            y,
            sample_weight,
            annotators=annotators,
            trusted=trusted,
            noisy_label=noisy_label,
            reset=not warm,
        )
        config = resolve_config(self, data, group)
        with seeded(same_generator(self.random_state, group), self.device) as rng:
            data = data.with_ties_drawn(rng)
            net, data = build_net(self, data, config, group, warm=warm)
            fitted = partial(self._fitted, net, data, config)
            so_far = partial(self._fitted_so_far, net, data, config)
            with fit_progress(self, X, y, so_far, is_told=group.is_first) as progress:
                trainer = train(net, data, config, rng, progress)
                self._set_fitted(fitted(), trainer.initial_transition, trainer.report())
                warn_of_unreliable_fit(net, data, trainer, self.transition_matrix_)
        self._stream: Stream | None = None
        net.forget_training()
        return self

    @available_if(supports_partial_fit)
    @restore_on_error
    @plain_torch()
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        annotators: Any = None,
        trusted: Any = None,
        noisy_label: Any = None,
    ) -> NoisyLabelClassifier:
        """Learn from the next rows of a stream, in one pass over them.

        Call it again and again; no row is kept. A stream has three ways to find the noise:

        - After `fit` on its first rows, network and noise layer go on together. This is the
          best way when enough of the first rows can be held in memory.
        - With a matrix as `transition_init`, they learn together from the first call on.
        - Otherwise a baseline learns first. It predicts the rows of every call before it
          learns them, and of these predictions the last 1000 or so are kept. When the
          likelihood of the observed labels has not risen by more than its standard error for
          `n_iter_no_change` times so many rows, the noise layer starts from them, as with
          ``transition_init="auto"``, and both learn together from then on.

        The optimiser goes on from call to call, until `lr` is set to another value. For
        skorch's callbacks each call is a stage of one epoch. `max_epochs`, `early_stopping`
        and `warm_start` make no difference.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)
            The next rows.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            Their observed labels, or several answers a row as in `fit`. Annotators may come and
            go. Their matrices start when about 1000 rows with answers were seen.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed in the first call unless `fit` came before.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, relative to one another among the rows of the call.
        annotators : array-like of the shape of y, default=None
            Who gave each answer, as in `fit`.
        trusted : array-like of bool of shape (n_samples,), or of the shape of y, default=None
            Which labels were checked, as in `fit`. Before the noise layer starts, they name its
            classes.
        noisy_label : array-like of shape (n_samples,), default=None
            What was observed of these rows before, as in `fit`.

        Returns
        -------
        NoisyLabelClassifier
            The estimator itself. It can predict after each call.
        """
        group = current_group()
        check_parameters(self, X, group)
        warm = hasattr(self, "net_")
        data = training_data_of_all(
            group,
            self,
            X,
            y,
            sample_weight,
            annotators=annotators,
            trusted=trusted,
            noisy_label=noisy_label,
            reset=not warm,
            classes=stream_classes(self, classes),
            dtype=self.net_.dtype if warm else None,
        )
        config = resolve_config(self, data, group)
        stream = getattr(self, "_stream", None) or Stream(
            new_rng(self.random_state), follow_columns=not warm
        )
        with seeded(same_generator(stream.random_state, group), self.device):
            data = data.with_ties_drawn(stream.random_state)
            net, data = net_of_stream(self, data, config, group)
            fitted = partial(self._fitted, net, data, config)
            so_far = partial(self._fitted_so_far, net, data, config)
            with fit_progress(self, X, y, so_far, is_told=group.is_first) as progress:
                start = fit_chunk(net, data, config, stream, progress)
                self._set_fitted(fitted(**stream.account_of(net, data, config)), start)
        net.train_in(ALONE)
        self._stream = stream
        return self

    def _fitted(
        self,
        net: SkorchNet,
        data: TrainingData,
        config: TrainingConfig,
        annotator_counts: np.ndarray | None = None,
        **of_stream: Any,
    ) -> dict[str, Any]:
        """Return the fitted attributes as they are, in all processes together."""
        hidden = net.network.hidden
        return {
            "net_": net,
            "classes_": data.classes,
            "_log_class_weight": config.log_class_weight,
            "noise_model_": net.network.noise_model,
            "dropout_": hidden.dropout if isinstance(hidden, MLP) else None,
            **summary(net, data, **of_stream),
            **summarise_annotators(net, data, config.annotator_prior, annotator_counts),
        }

    def _fitted_so_far(
        self, net: SkorchNet, data: TrainingData, config: TrainingConfig
    ) -> dict[str, Any]:
        """Return the fitted attributes at any time of the fit, by the rows of this process."""
        with net.in_processes(ALONE):
            return self._fitted(net, rows_of_process(data), config)

    def _set_fitted(
        self,
        fitted: dict[str, Any],
        initial_transition: np.ndarray | None,
        selection: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Set the fitted attributes; without a matrix the start stays where it was."""
        self.__dict__.update(fitted)
        self.selection_ = list(selection)
        if initial_transition is not None:
            self.initial_transition_matrix_ = initial_transition
        elif not hasattr(self, "initial_transition_matrix_"):
            self.initial_transition_matrix_ = np.eye(len(self.classes_))
