"""From the parameters of a classifier to the configuration of the training and a net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.utils.data import DataLoader

from sknoisy._data.batches import ArrayBatches
from sknoisy._data.columns import occurring_columns
from sknoisy._data.indexable import IndexableDataset, as_indexable
from sknoisy._data.training_data import TrainingData
from sknoisy._distributed.group import Group
from sknoisy._distributed.rows import column_statistics
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.network import MLP, NoisyLabelModule, build_network, copied
from sknoisy._net.callbacks import input_sizes
from sknoisy._net.net import SkorchNet
from sknoisy._stages.stages import TrainingConfig
from sknoisy._support.memory import check_feature_noise_fits, check_memory
from sknoisy._support.torch_state import named_tensors
from sknoisy._support.validation import check_routed, check_transition_matrix, parameter_error

_ROWS_TO_LOOK_AT = 64
_DROPOUTS = 0.0, 0.25, 0.5  # the last one is that of the paper
_COPIES_OF_MATRICES = 8  # of the start, of the best epoch, of counts and what is computed of them


def check_parameters(classifier: Any, X: Any, group: Group) -> None:
    """Refuse parameters that exclude each other or do not suit X, and parts that cannot be built.

    Parameters
    ----------
    classifier : NoisyLabelClassifier
    X : array-like or data set
        Before validation.
    group : Group
    """
    if group.size > 1 and classifier.on_interrupt == "keep":
        raise ValueError(
            "on_interrupt='keep' needs one process: an interrupt does not reach several in the "
            "same epoch. Set on_interrupt='raise', or distributed=False."
        )
    check_routed(classifier._routed())
    _check_device(classifier.device)
    classifier._check_params_of("optimizer", classifier.optimizer, ["param_groups"])
    _check_optimizer(classifier)
    X = as_indexable(X)
    fetched = isinstance(X, IndexableDataset) and not X.holds_arrays
    default = DataLoader if fetched else ArrayBatches
    classifier._check_params_of("iterator_train", classifier.iterator_train or default)
    classifier._check_params_of("iterator_valid", classifier.iterator_valid or default)
    if classifier.noise_model in ("c", "auto") and classifier.method == "em":
        raise ValueError(
            f"method='em' needs noise_model='s', got noise_model={classifier.noise_model!r}: the "
            "closed form of its update holds for noise that ignores the features. Use "
            "method='direct'."
        )
    if classifier.n_networks > 1:
        _check_networks_can_be_averaged(classifier)
    if not classifier.learn_transition and (
        isinstance(classifier.transition_init, str) or classifier.noise_model != "s"
    ):
        raise ValueError(
            "learn_transition=False needs noise_model='s' and the known matrix as "
            f"`transition_init`; got noise_model={classifier.noise_model!r} and "
            f"transition_init={classifier.transition_init!r}."
        )


def _check_networks_can_be_averaged(classifier: Any) -> None:
    if classifier.module is not None:
        raise ValueError(
            f"n_networks={classifier.n_networks} needs the default network, module=None. For a "
            "module of your own, use sklearn.ensemble.VotingClassifier with voting='soft' around "
            "classifiers of different random_state."
        )
    if classifier.n_noise_targets is not None and classifier.noise_model in ("c", "auto"):
        raise ValueError(
            f"n_networks={classifier.n_networks} needs n_noise_targets=None with "
            f"noise_model={classifier.noise_model!r}, since networks may keep different targets; "
            f"got n_noise_targets={classifier.n_noise_targets}."
        )


def _check_device(device: Any) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`device` must be one that torch can compute on here; got {str(device)!r}: {error}"
        ) from error


def _check_optimizer(classifier: Any) -> None:
    """Refuse what makes no optimiser, by a trial on one parameter."""
    params = {"lr": classifier.lr, **classifier._params_of("optimizer")}
    groups = params.pop("param_groups", ())
    pairs = isinstance(groups, list | tuple) and all(
        isinstance(group, list | tuple) and len(group) == 2 and isinstance(group[1], dict)
        for group in groups
    )
    if not pairs:
        raise ValueError(
            "`optimizer__param_groups` must hold pairs of a pattern of names and a dict of "
            f"parameters; got {groups!r}."
        )
    names = ", ".join(f"optimizer__{name}" if name != "lr" else name for name in params)
    with parameter_error("optimizer", f"be a class of torch optimisers that takes {names}"):
        made = classifier.optimizer([nn.Parameter(torch.zeros(1))], **params)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"it made {type(made).__name__}.")


def resolve_config(classifier: Any, data: TrainingData, group: Group) -> TrainingConfig:
    """Resolve every "auto", and what depends on the labels and on the number of processes."""
    init, n_rows = classifier.transition_init, len(data)
    n_annotators = None
    if data.answers is not None and data.learns_from_answers:
        n_annotators = data.answers.n_annotators
    if not isinstance(init, str):
        init = check_transition_matrix(
            init, data.n_classes, "transition_init", n_samples=n_annotators, what="annotator"
        )
    if data.learns_from_answers:
        _check_answers_are_supported(classifier, data)
    n_targets = classifier.n_noise_targets
    if n_targets is not None and n_targets > data.n_classes:
        raise ValueError(
            f"`n_noise_targets` must be at most the number of classes, {data.n_classes}; got "
            f"{n_targets}."
        )
    batch_size = classifier.batch_size
    if batch_size == "auto":
        batch_size = 256 if n_rows <= 256 else int(np.clip(n_rows // 20, 64, 256))
        batch_size = -(-batch_size // group.size)
    max_epochs = classifier.max_epochs
    if max_epochs == "auto":
        steps = -(-n_rows // (batch_size * group.size))
        max_epochs = 150 if n_rows < 64 else max(40, -(-20_000 // steps))
    hold_out = classifier.early_stopping
    goes_on = classifier.warm_start and hasattr(classifier, "net_")
    all_trusted = data.trusted is not None and bool(data.trusted.mask.all())
    noise_model = None if all_trusted else classifier.noise_model
    if noise_model == "auto" and data.learns_from_answers:
        noise_model = "s"  # with a matrix for each annotator
    return TrainingConfig(
        noise_model=noise_model,
        method=classifier.method,
        transition_init=init,
        learn_transition=classifier.learn_transition,
        select_noise_model=classifier.select_noise_model,
        max_epochs=max_epochs,
        max_em_iter=max_epochs if classifier.max_em_iter == "auto" else classifier.max_em_iter,
        tol=classifier.tol,
        hold_out=n_rows >= 2000 if hold_out == "auto" else bool(hold_out),
        stop_by_folds="auto" in (classifier.early_stopping, classifier.max_epochs),
        validation_fraction=classifier.validation_fraction,
        n_iter_no_change=classifier.n_iter_no_change,
        n_noise_targets=n_targets,
        batch_size=int(batch_size),
        keep_interrupted=classifier.on_interrupt == "keep",
        log_class_weight=_log_class_weight(classifier, data),
        annotator_prior=_chosen(classifier.annotator_prior),
        answer_power=_chosen(classifier.answer_power),
        dropout_rates=_dropout_rates(classifier, data),
        n_networks=1 if goes_on else classifier.n_networks,
    )


def _dropout_rates(classifier: Any, data: TrainingData) -> tuple[float, ...]:
    """Return the rates to choose from, none if there is no choice."""
    if classifier.dropout != "auto" or classifier.module is not None:
        return ()
    chooses = data.trusted is None and not data.learns_from_answers
    return _DROPOUTS if chooses else _DROPOUTS[:1]


def _chosen(value: Any) -> float | None:
    return None if isinstance(value, str) else float(value)


def _check_answers_are_supported(classifier: Any, data: TrainingData) -> None:
    """Refuse what needs one observed label a row, and more matrices than fit in memory."""
    assert data.answers is not None
    n_annotators, n_classes = data.answers.n_annotators, data.n_classes
    check_memory(
        _COPIES_OF_MATRICES * 8 * n_annotators * n_classes**2,
        "cpu",
        f"The transition matrices of {n_annotators} annotators and {n_classes} classes",
        "Leave out annotators with few answers, or train on one label a row "
        "(`sknoisy.crowd.majority_vote`).",
    )
    if classifier.noise_model == "c":
        raise ValueError(
            "noise_model='c' needs one observed label a row; got several answers. Use "
            "noise_model='s', with a matrix for each annotator."
        )
    if isinstance(classifier.transition_init, str) and classifier.transition_init != "auto":
        raise ValueError(
            f"transition_init={classifier.transition_init!r} needs one observed label a row; got "
            "several answers. Use 'auto' or an array."
        )
    for name, unused in (("n_noise_targets", None), ("volume_penalty", 0.0)):
        if getattr(classifier, name) != unused:
            raise ValueError(
                f"`{name}` must be {unused!r} with several answers a row, whose matrices have a "
                f"closed form; got {getattr(classifier, name)!r}."
            )


def _log_class_weight(classifier: Any, data: TrainingData) -> np.ndarray:
    with parameter_error("class_weight", "hold a weight for each class"):
        weight = compute_class_weight(
            classifier.class_weight,
            classes=data.classes,
            y=data.classes[data.target],
            sample_weight=data.weight,
        )
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError(
            "`class_weight` must hold finite weights that are not negative and not all zero; "
            f"got {classifier.class_weight!r}."
        )
    return np.log(np.maximum(weight, np.finfo(np.float64).tiny))


def build_net(
    classifier: Any, data: TrainingData, config: TrainingConfig, group: Group, *, warm: bool
) -> tuple[SkorchNet, TrainingData]:
    """Return a net, and the data as its network takes them.

    Parameters
    ----------
    classifier : NoisyLabelClassifier
    data : TrainingData
    config : TrainingConfig
    group : Group
        The processes that the net trains in. It begins with the weights of the first one.
    warm : bool
        Whether the net goes on from a copy of the fitted network, and not from a new one.
    """
    network = (_fitted_network if warm else _new_network)(classifier, data, group)
    group.share([tensor for _, tensor in named_tensors(network)])
    network.hidden_scale = group.once(lambda: network.hidden_scale)
    net = SkorchNet(
        network,
        classes=np.arange(data.n_classes),
        volume_penalty=classifier.volume_penalty,
        transition_prior=classifier.transition_prior,
        iterator_train=classifier.iterator_train or ArrayBatches,
        iterator_valid=classifier.iterator_valid or ArrayBatches,
        optimizer=classifier.optimizer,
        lr=classifier.lr,
        batch_size=config.batch_size,
        device=classifier.device,
        compile=classifier.compile,
        callbacks=None if classifier.callbacks is None else list(classifier.callbacks),
        verbose=classifier.verbose,
        **{k: v for k, v in classifier._routed().items() if not k.startswith("module__")},
    )
    net.train_in(group)
    net.initialize()
    # For callbacks that look whether the module has the size of the data.
    sizes = input_sizes(net.callbacks_, _array_like(data))
    net.__dict__.update({f"module__{name}": size for name, size in sizes.items()})
    if classifier.noise_model == "c":
        check_feature_noise_fits(
            data.n_classes,
            classifier.n_noise_targets,
            net.network.head.in_features,
            data.dtype,
            classifier.device,
        )
    if warm:
        net.history.extend(classifier.net_.history)
    return net, _as_taken_by(net, data)


def net_of_stream(
    classifier: Any, data: TrainingData, config: TrainingConfig, group: Group
) -> tuple[SkorchNet, TrainingData]:
    """Return the net that goes on with a stream, and the data as its network takes them.

    It is the net of the last chunk, with its optimiser; a new one around a copy of the network
    after a fit, for another learning rate or new columns of sparse data; or a new one.
    """
    fitted: SkorchNet | None = getattr(classifier, "net_", None)
    if fitted is None:
        return build_net(classifier, data, config, group, warm=False)
    goes_on = fitted.has_optimizer and fitted.lr == classifier.lr
    if goes_on and _knows_columns(fitted, data, group):
        fitted.train_in(group)
        return fitted, _as_taken_by(fitted, data)
    net, data = build_net(classifier, data, config, group, warm=True)
    if goes_on:
        net.take_over_steps(fitted)
    return net, data


def _as_taken_by(net: SkorchNet, data: TrainingData) -> TrainingData:
    by_annotator = isinstance(net.network.noise, AnnotatorTransition)
    return replace(
        data,
        dtype=net.dtype,
        keep_sparse=net.network.takes_sparse,
        by_annotator=by_annotator,
    )


def _new_network(classifier: Any, data: TrainingData, group: Group) -> NoisyLabelModule:
    sample = data.example()
    sizes = input_sizes(classifier.callbacks or [], _array_like(data))
    network = build_network(
        classifier.module,
        # The default network has the size of the data already.
        classifier._params_of("module") | ({} if classifier.module is None else sizes),
        sample,
        data.n_classes,
        dtype=data.dtype,
        hidden_layer_sizes=classifier.hidden_layer_sizes,
        dropout=_DROPOUTS[-1] if classifier.dropout == "auto" else classifier.dropout,
        columns=occurring_columns(data.X, _total(group)) if classifier.module is None else None,
    )
    if isinstance(network.hidden, MLP):
        if classifier.dropout == "auto":
            network.hidden.dropout = _DROPOUTS[0]  # until there is a choice
        statistics = column_statistics(data, group)
        network.hidden.reset_standardization(statistics.mean, statistics.scale)
    else:
        n_rows = data.X.shape[0]
        rows = np.linspace(0, n_rows - 1, min(n_rows, _ROWS_TO_LOOK_AT)).astype(np.intp)
        network.rescale_features(data.example(rows))
    return network


def _array_like(data: TrainingData) -> Any:
    """Return X, or of a data set a few rows, in which a callback sees the number of features."""
    return data.example() if isinstance(data.X, IndexableDataset) else data.X


def _fitted_network(classifier: Any, data: TrainingData, group: Group) -> NoisyLabelModule:
    if not np.array_equal(data.classes, classifier.classes_):
        raise ValueError(
            "warm_start=True needs the classes of the first fit, "
            f"{classifier.classes_.tolist()!r}; got {data.classes.tolist()!r}."
        )
    network = copied(classifier.net_.network).cast_(data.dtype)
    if network.sparse_input is not None:
        network.sparse_input.extend(_columns_in(data.X, group))
    return network


def _knows_columns(net: SkorchNet, data: TrainingData, group: Group) -> bool:
    """Whether a net has weights for all columns of wide sparse data."""
    layer = net.network.sparse_input
    return layer is None or bool(np.isin(_columns_in(data.X, group), layer.columns.cpu()).all())


def _columns_in(X: Any, group: Group) -> np.ndarray:
    """Return the columns that occur in X, sparse or dense, or in that of any process."""
    counts = np.bincount(X.indices, minlength=X.shape[1]) if sparse.issparse(X) else X.any(axis=0)
    return np.flatnonzero(_total(group)(counts.astype(np.int64)))


def _total(group: Group) -> Callable[[np.ndarray], np.ndarray]:
    """Return what adds up counts of processes with rows of their own."""
    return group.sum if group.sharded else np.asarray
