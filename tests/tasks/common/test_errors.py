"""All errors that a user can correct have one root, which decides how the command line ends."""

import ast
import builtins
import pickle
from pathlib import Path

import pytest

from tests import house
from veldt.errors import UsageError
from veldt.learned_opt import errors as learned_errors
from veldt.meta import errors as meta_errors
from veldt.search import errors as search_errors
from veldt.tasks.common import errors, spelling
from veldt.tasks.pool.base import PoolError

ROOT = Path(__file__).parents[3]
# Caught by veldt itself: no user meets them.
INTERNAL = {"FormError", "PostError", "ReplyError", "Terminated"}


def derived(root):
    return {root, *(one for child in root.__subclasses__() for one in derived(child))}


def test_no_class_of_errors_has_another_root():
    apart = set()
    for path in house.find_modules(ROOT).values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base) for base in node.bases]
                builtin = [getattr(builtins, base, object) for base in bases]
                if any(issubclass(base, BaseException) for base in builtin) and not any(
                    base.endswith("VeldtError") for base in bases
                ):
                    apart.add(node.name)
    assert apart == {"VeldtError", *INTERNAL}


def test_what_was_typed_and_cannot_be_used_ends_with_2():
    unusable = {one.__name__ for one in derived(errors.VeldtError) if one.exit_code == 2}
    assert unusable == {
        *("ConfigError", "TemplateError", "UsageError"),
        *("UnknownNameError", "UnknownTaskError", "UnknownSuiteError", "UnknownRuleError"),
        *("UnknownArchitectureError", "UnknownWeightsError"),
    }
    assert {one.exit_code for one in derived(errors.VeldtError)} == {1, 2}


@pytest.mark.parametrize(
    "error",
    [
        UsageError("a"),
        errors.UnknownTaskError.of("lin", ["lion"]),
        learned_errors.UnknownOptionError.of("celo2", "lr", ["learning_rate"]),
        meta_errors.ReplayError("a"),
        search_errors.StoreError("a"),
        PoolError("a"),
    ],
)
def test_errors_cross_process_boundaries(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (made here)
    assert type(again) is type(error) and str(again) == str(error)


def test_the_nearest_spelling_is_named():
    known = ["adamw", "lion", "adam"]
    assert spelling.nearest("adamv", known, most=2) == ["adam", "adamw"]
    assert spelling.did_you_mean("loin", known) == " (did you mean 'lion'?)"
    assert spelling.question("loin", known) == " Did you mean 'lion'?"
    assert spelling.did_you_mean("xyz", known) == spelling.question("xyz", known) == ""
