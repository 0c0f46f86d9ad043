"""Parameters of parts, such as ``module__width``, as keyword arguments of an estimator."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Self

from sklearn.base import BaseEstimator

from sknoisy._support.validation import accepted_names, check_names, check_routed


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
