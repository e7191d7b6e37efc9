"""Names of veldt's own modules that older configs hold."""

import importlib

import pytest

from veldt.tasks import registry
from veldt.tasks.common.user_code import imports, older_names


@pytest.mark.parametrize("before", older_names.MOVED)
def test_every_older_name_leads_to_a_module_that_is_there(before):
    after = older_names.MOVED[before]
    assert importlib.util.find_spec(before) is None
    assert importlib.import_module(after).__name__ == after
    assert older_names.present(f"{before}:thing") == f"{after}:thing"


def test_what_an_older_config_names_is_found():
    assert registry.load_task("veldt.tasks.images:digits_mlp").name == "digits_mlp"
    expert = imports.load_object("expert", "veldt.meta.experts:adam")
    assert expert is imports.load_object("expert", "veldt.meta.problems.experts:adam")


@pytest.mark.parametrize("name", ["digits_mlp", "my_task:Spiral", "veldt.tasks.imagery:x", ""])
def test_other_names_stay(name):
    assert older_names.present(name) == name
