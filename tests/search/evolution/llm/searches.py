"""Small searches with language models, for the tests of this folder."""

import contextlib
import sqlite3
from pathlib import Path

from tests.search import chat_server, fakes
from tests.search.evolution import test_engine as engine_tests
from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.run import run_search
from veldt.search.storage.store import FILE_NAME
from veldt.tasks.pool.config import PoolConfig

VARIABLE = "VELDT_TEST_KEY"
contents = engine_tests.contents


def llm(url="", *, models=None, **changes):
    """A config of one model at a server, which is asked often and given up soon."""
    if models is None:
        models = (ModelConfig("m", url, key_env=VARIABLE),)
    settings = {"share": 0.5, "max_tries": 2, "timeout_s": 60.0, "patience_s": 120.0, "lead": 6}
    return LlmConfig(models=models, **{**settings, **changes})


def search(directory, config, *, worker=None, resume=False, view=None, **changes):
    """Runs a search with a fake worker in this process; the key is in the environment."""
    settings = {"pool": PoolConfig(num_workers=1), "max_evaluations": 25, **changes}
    worker = worker or fakes.FakeWorker()
    with environment():
        return run_search.run_search(
            fakes.small_config(llm=config, **settings),
            directory,
            resume=resume,
            view=view,
            factory=lambda: worker,
        )


@contextlib.contextmanager
def environment(value=chat_server.KEY):
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, value)
        yield


def rows(directory, query, values=()):
    """Rows of a store that another process may be writing."""
    if not (directory / FILE_NAME).exists():
        return []
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]


def files_with(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text."""
    wanted = text.encode()
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and wanted in path.read_bytes()
    ]
