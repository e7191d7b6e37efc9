"""Suites name shipped tasks, each once."""

from veldt.tasks import registry, suites


def test_suites_hold_shipped_tasks():
    for name, suite in suites.SUITES.items():
        assert suite.name == name
        assert suite.description
        assert len(set(suite.tasks)) == len(suite.tasks) > 0
        assert set(suite.tasks) <= set(registry.TASKS)
