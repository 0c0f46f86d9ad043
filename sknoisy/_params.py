"""Parameters of parts, such as ``module__width``, as keyword arguments of an estimator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import Any, Self

from sklearn.base import BaseEstimator

from sknoisy._validation import check_routed


class RoutedParamsMixin(BaseEstimator):
    """Let an estimator take ``part__name`` keyword arguments that its signature does not list.

    They are kept as attributes, so that `get_params`, `set_params`, `clone`, `repr` and grids
    see them. Names that belong to no part are refused in fit, as scikit-learn wants it.
    """

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

    def set_params(self, **params: Any) -> Self:
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
        self.__dict__.update(routed)
        return self

    def _routed(self) -> dict[str, Any]:
        """Return the keyword arguments that are no parameters of the signature."""
        own = self._get_param_names()
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in own and not name.startswith("_") and not name.endswith("_")
        }

    def _params_of(self, part: str) -> dict[str, Any]:
        """Return the parameters of one part, by their names in that part."""
        prefix = f"{part}__"
        check_routed(self._routed())
        return {
            name.removeprefix(prefix): value
            for name, value in self._routed().items()
            if name.startswith(prefix)
        }

    def _check_params_of(
        self, part: str, factory: Callable[..., Any], more: Collection[str] = ()
    ) -> None:
        """Refuse parameters of a part that the callable which makes it does not take.

        Parameters
        ----------
        part : str
        factory : callable
            Its first argument, the parameters to optimise or the data set, is given by the net.
        more : collection of str, default=()
            Names that the net itself takes for this part.
        """
        check_names(part, self._params_of(part), accepted_names(factory), more)


def accepted_names(factory: Callable[..., Any], skip: int = 1) -> list[str] | None:
    """Return the names of the arguments of a callable after the first; None if it takes any."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())[skip:]
    except (TypeError, ValueError):  # written in C, without a signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def check_names(
    part: str, names: Iterable[str], accepted: Collection[str] | None, more: Collection[str] = ()
) -> None:
    """Refuse names of parameters that a part does not have, and name those that it has."""
    if accepted is None:
        return
    known = [*accepted, *more]
    unknown = sorted(f"{part}__{name}" for name in names if name not in known)
    if unknown:
        listed = ", ".join(f"{part}__{name}" for name in sorted(known)) or "no parameters"
        raise ValueError(f"Unknown parameter(s) {', '.join(unknown)}: `{part}` takes {listed}.")


def check_patterns(patterns: Iterable[str], names: Collection[str]) -> None:
    """Refuse patterns of parameter groups that match none of the parameters of a network."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"The pattern {pattern!r} in optimizer__param_groups matches no parameter; "
                f"there are {', '.join(names)}."
            )
