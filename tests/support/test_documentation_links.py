"""The link from the diagram of an estimator to its page in the documentation."""

from importlib import metadata

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sknoisy import NoisyLabelClassifier, NoisyLabelMetaClassifier


class Metadata(dict):
    def get_all(self, name):
        return self.get(name)


@pytest.fixture
def address(monkeypatch):
    urls = ["Paper, https://paper.example", "Documentation, https://docs.example/stable/"]
    monkeypatch.setattr(metadata, "metadata", lambda name: Metadata({"Project-URL": urls}))
    return "https://docs.example/stable/generated"


@pytest.mark.parametrize(
    "estimator", [NoisyLabelClassifier(), NoisyLabelMetaClassifier(LogisticRegression())]
)
def test_a_diagram_links_to_the_page_of_the_class(estimator, address):
    page = f'href="{address}/sknoisy.{type(estimator).__name__}.html"'
    assert page in estimator._repr_html_()
    assert page in make_pipeline(estimator)._repr_html_()


def test_a_diagram_has_no_link_without_an_address(monkeypatch):
    monkeypatch.setattr(metadata, "metadata", lambda name: Metadata())
    assert "sknoisy.NoisyLabelClassifier.html" not in NoisyLabelClassifier()._repr_html_()


def test_a_diagram_has_no_link_where_the_package_is_not_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    assert "sknoisy.NoisyLabelClassifier.html" not in NoisyLabelClassifier()._repr_html_()
