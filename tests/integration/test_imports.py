"""Modules that an import loads, in an interpreter of its own."""

import subprocess
import sys

import pytest

import sknoisy


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "name", ["sknoisy.noise", "sknoisy.metrics", "sknoisy.inspection", "sknoisy._transition.starts"]
)
def test_what_needs_neither_torch_nor_skorch_loads_neither(name):
    program = f"import sys, {name}; print({{'torch', 'skorch'}} & sys.modules.keys())"
    assert run(program) == "set()\n"


def test_the_names_of_the_package_are_loaded_when_they_are_asked_for():
    program = """
import sys, sknoisy
print(sorted(set(sknoisy.__all__) - set(dir(sknoisy))), "torch" in sys.modules)
print(sknoisy.noise.uniform_transition(2, 0.5).sum(), "torch" in sys.modules)
print(sknoisy.NoisyLabelClassifier().noise_model, "torch" in sys.modules)
"""
    assert run(program) == "[] False\n2.0 False\ns True\n"


def test_every_public_name_is_there():
    names: dict = {}
    exec("from sknoisy import *", names)
    assert set(sknoisy.__all__) <= names.keys()
    assert sknoisy.NoisyLabelClassifier is sknoisy._classifier.classifier.NoisyLabelClassifier


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sknoisy' has no attribute 'Classifier'"):
        _ = sknoisy.Classifier
