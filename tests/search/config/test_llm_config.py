"""The config of language models: what it refuses, and that it goes through files."""

import pytest

from tests.search import fakes
from veldt import config as config_lib
from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.config.search_config import SearchConfig
from veldt.tasks.common.config import codec
from veldt.tasks.common.errors import ConfigError

ONE = (ModelConfig("m", "http://h/v1"),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a+b"}, "cannot be used"),
        ({"name": "mutation"}, "is taken"),
        ({"name": ""}, "cannot be used"),
        ({"name": "x" * 61}, "cannot be used"),
        ({"url": "localhost:80/v1"}, "http://HOST"),
        ({"url": "ftp://h/"}, "http://HOST"),
        ({"url": "http://h:port/"}, "http://HOST"),
        ({"url": "http://me:secret@h/"}, "key_env"),
        ({"url": "https://h/?api_key=1"}, "key_env"),
        ({"url": "https://h/a b"}, "no spaces"),
        ({"url": "https://h/#a"}, "no fragment"),
        ({"key_env": "sk-12345"}, "name environment variables, not what they hold"),
        ({"headers_env": {"X-A": "a b"}}, "name environment variables"),
        ({"headers_env": {"X A": "A"}}, "no name of a header"),
        ({"share": 0.0}, "share is 0.0"),
        ({"temperature": 6.0}, "temperature is 6.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"input_price": -1.0}, "input_price"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        ModelConfig(**{"name": "m", "url": "http://h/v1", **changes})
    assert "sk-12345" not in str(caught.value) and "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ()}, "models is empty"),
        ({"models": (*ONE, *ONE)}, "m is named twice"),
        ({"models": (ModelConfig("m"),)}, "m has no url"),
        ({"share": 0.0}, "share is 0.0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"num_programs": 5}, "must be 1 to 4"),
        ({"max_cost": 1.0}, "m has none"),
        ({"parallel": 0}, "parallel"),
        ({"max_tries": 0}, "max_tries"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"max_calls": -1}, "max_calls"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        LlmConfig(**{"models": ONE, **changes})


def test_what_does_not_go_with_models_is_refused():
    with pytest.raises(ValueError, match="work with one driver alone"):
        fakes.small_config(llm=LlmConfig(models=ONE), drivers=2)
    with pytest.raises(ValueError, match=r"llm\.lead is 3 and the window 4"):
        fakes.small_config(llm=LlmConfig(models=ONE, lead=3))


@pytest.mark.parametrize(
    ("share", "num_programs", "every"), [(0.2, 2, 10), (1.0, 2, 2), (0.9, 4, 4), (0.01, 1, 100)]
)
def test_calls_do_not_overlap(share, num_programs, every):
    config = LlmConfig(models=ONE, share=share, num_programs=num_programs)
    assert config.every == every >= num_programs


def test_without_a_network_no_address_is_needed():
    bare = (ModelConfig("m"),)
    for changes in ({"offline": True}, {"replay": "run"}, {"manual": "folder"}):
        assert LlmConfig(models=bare, **changes).asked == bare
    assert LlmConfig(manual="folder").asked == (ModelConfig("manual"),)


YAML = """
tasks: [{task: digits_mlp, num_steps: 10}]
meta_validation: []
llm:
  about: small images
  models:
    - name: local
      url: http://localhost:11434/v1
      params: {top_p: 0.9, max_tokens: null, stop: [a, b], options: {seed: 1, on: true}}
      headers_env: {X-Team: TEAM}
"""


def test_a_file_and_the_command_line_give_the_config(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    words = ["--llm.share", "0.5", "--llm.models.0.share", "2", "--llm.choice=bandit"]
    found = config_lib.load_config(SearchConfig, str(tmp_path / "a.yaml"), words)
    assert found.llm.share == 0.5 and found.llm.choice == "bandit"
    (model,) = found.llm.models
    assert model.share == 2.0 and model.headers_env == {"X-Team": "TEAM"}
    assert model.params == {
        "top_p": 0.9,
        "max_tokens": None,
        "stop": ("a", "b"),
        "options": {"seed": 1, "on": True},
    }
    assert codec.from_plain(SearchConfig, codec.to_plain(found), "again") == found
    with pytest.raises(ConfigError, match=r"llm\.models\.0\.shar.*Did you mean 'share'"):
        text = YAML.replace("headers_env", "shar")
        (tmp_path / "b.yaml").write_text(text)
        config_lib.load_config(SearchConfig, str(tmp_path / "b.yaml"))
