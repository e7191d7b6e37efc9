"""The keys of endpoints: read from the environment, sent to their endpoint, and shown to no one.

While a search runs they are out of the environment of this process, so that no process that it
starts (workers, helpers) inherits them. What an endpoint writes may repeat its key, so its texts
are cleared of them before they go anywhere.
"""

import contextlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Final, final

from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.errors import SearchError

HIDDEN: Final = "[hidden]"
_SHORTEST: Final = 6  # What is shorter is a stand-in for a key, and may be a word of any text.


@final
class Keys:
    """The values of the environment variables that a config names."""

    def __init__(self, values: Mapping[str, str]):
        """Keep values, by the variable."""
        self._values = dict(values)
        forms = {
            form
            for value in values.values()
            if len(value) >= _SHORTEST
            for form in (value, urllib.parse.quote(value, safe=""), json.dumps(value)[1:-1])
        }
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._values)})"

    def headers(self, model: ModelConfig) -> dict[str, str]:
        """Return the headers of a model's requests."""
        found = {header: self._values[name] for header, name in model.headers_env.items()}
        if model.key_env is not None:
            found["Authorization"] = f"Bearer {self._values[model.key_env]}"
        return found

    def hide(self, text: str) -> str:
        """Return a text without any of the keys."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text


@contextlib.contextmanager
def taken(config: LlmConfig) -> Iterator[Keys]:
    """Take the keys of a config's models from the environment, and put them back at the end.

    Raises:
      SearchError: A variable is not set, or holds what no header can.
    """
    values: dict[str, str] = {}
    for model in config.models:
        for name in filter(None, (model.key_env, *model.headers_env.values())):
            values[name] = _value(model, name)
    before = {name: os.environ.pop(name) for name in values}
    try:
        yield Keys(values)
    finally:
        os.environ.update(before)


def _value(model: ModelConfig, name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise SearchError(
            f"llm: the environment variable {name}, which model {model.name} needs, is not set"
        )
    if not value.isascii() or not value.isprintable():
        raise SearchError(
            f"llm: the environment variable {name} of model {model.name} holds letters that no "
            "header can have"
        )
    return value
