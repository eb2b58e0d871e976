"""Every example in a docstring of the library runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import xsam_core

MODULES = [f"xsam_core.{module.name}" for module in pkgutil.iter_modules(xsam_core.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring__examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_docstring__there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(bool(test.examples) for module in modules for test in finder.find(module)) >= 12


def test_all__names_exist_and_are_documented():
    for name in xsam_core.__all__:
        value = getattr(xsam_core, name)
        assert value.__doc__ or name in {"Closure", "Closures"}
