"""Language tasks: how a text is cut, that models cannot see ahead, and the GRU's equations."""

import sysconfig
from pathlib import Path

import jax
import numpy as np
import pytest

from veldt.tasks import errors, language, registry

MODELS = {
    "gru": language.Gru(num_symbols=11, width=8),
    "transformer": language.Transformer(num_symbols=11, width=8, num_heads=2, num_layers=2),
}


def test_a_text_is_cut_into_contiguous_parts_and_windows(tmp_path):
    letters = np.frombuffer(b"abcd", np.uint8)
    rng = np.random.default_rng(0)
    train, valid, test = (
        rng.choice(letters, 8000),
        rng.choice(letters + 1, 1000),
        rng.choice(letters + 4, 1000),
    )
    path = tmp_path / "letters.txt"
    path.write_bytes(np.concatenate([train, valid, test]).tobytes())
    corpus = language.load_corpus(path)
    assert corpus.num_symbols == 5  # four letters, and one for e to h
    for split, part, length in (("train", train, 8000), ("valid", valid, 1000)):
        examples = corpus.splits[split]
        assert examples.inputs.shape == ((length - 1) // 16, 16)
        np.testing.assert_array_equal(examples.inputs[:, 1:], examples.targets[:, :-1])
        symbols = np.minimum(part - ord("a"), 4)
        starts = np.arange(0, length - 16, 16)
        expected = {symbols[start : start + 17].astype(np.uint8).tobytes() for start in starts}
        whole = np.concatenate([examples.inputs, examples.targets[:, -1:]], axis=1)
        assert {window.tobytes() for window in whole} == expected
    assert (corpus.splits["test"].inputs == 4).all()


def test_the_text_is_the_environments_where_it_names_one(monkeypatch, tmp_path):
    path = tmp_path / "ab.txt"
    path.write_bytes(b"ab" * 5000)
    monkeypatch.setenv(language.TEXT_VARIABLE, str(path))
    task = registry.load_task("char_gru")
    assert task.module.num_symbols == 3


def test_the_default_text_is_source_of_this_python():
    folder = Path(sysconfig.get_path("stdlib"))
    sizes = [(folder / f"{m}.py").stat().st_size for m in language.STANDARD_LIBRARY_MODULES]
    corpus = language.load_corpus()
    num_read = sum(part.inputs.size for part in corpus.splits.values())
    assert sum(sizes) - 3 * 17 <= num_read <= sum(sizes)
    assert num_read > 500_000


def test_a_missing_or_short_text_is_an_error_with_its_cure(tmp_path):
    with pytest.raises(errors.MissingDataError, match=r"No such file.*Set VELDT_TEXT"):
        language.char_gru(tmp_path / "absent.txt")
    short = tmp_path / "short.txt"
    short.write_bytes(b"too short")
    with pytest.raises(errors.TaskError, match=r"short.txt has 9 bytes.*at least"):
        language.char_transformer(short)


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request):
    module = MODELS[request.param]
    symbols = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.uint8)
    return module, jax.jit(module.init)(jax.random.key(0), symbols), symbols


def test_logits_depend_on_the_past_alone(model):
    module, params, symbols = model
    apply = jax.jit(module.apply)
    logits = apply(params, symbols)
    assert logits.shape == (2, 9, 11)
    for position in range(9):
        changed = symbols.copy()
        changed[:, position] = (changed[:, position] + 1) % 11
        differs = np.abs(apply(params, changed) - logits).max(axis=(0, 2)) > 1e-6
        assert not differs[:position].any()
        assert differs[position:].all()


def test_the_gru_follows_its_equations():
    module = MODELS["gru"]
    symbols = np.array([[3, 1, 4, 1, 5]], np.uint8)
    params = jax.jit(module.init)(jax.random.key(1), symbols)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    p["bias"] = np.linspace(-1, 1, 24)
    params = {"params": {**params["params"], "bias": p["bias"].astype(np.float32)}}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def gate(i):
        return slice(8 * i, 8 * (i + 1))

    h, expected = np.zeros(8), []
    for symbol in symbols[0]:
        x, kernel, bias = p["Embed_0"]["embedding"][symbol], p["kernel"], p["bias"]
        r, z = (sigmoid(x[gate(i)] + h @ kernel[:, gate(i)] + bias[gate(i)]) for i in (0, 1))
        n = np.tanh(x[gate(2)] + r * (h @ kernel[:, gate(2)] + bias[gate(2)]))
        h = (1 - z) * n + z * h
        expected.append(h @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    np.testing.assert_allclose(module.apply(params, symbols)[0], expected, atol=1e-5)
