"""Model cards: what the record says and no more, and a folder that loads."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import veldt
from veldt.learned_opt import errors, model_card, registry, shipped, weight_files

SHIPPED = pytest.mark.parametrize("name", shipped.names())


def untold():
    """Weights without a record."""
    rule = registry.architecture("scaled")
    return weight_files.Weights("scaled", rule, rule.init(jax.random.key(0)))


def front_matter(text):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


@SHIPPED
def test_a_card_has_all_that_the_record_has(name):
    found = shipped.load(name)
    text = model_card.card(found, name, "Apache-2.0")
    assert front_matter(text)["license"] == "apache-2.0"
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    assert titles == [name, "Use", "Data", "Training", "Scores", "Limits", "Licence"]
    for family in found.record["families"]:
        assert f"- {family}\n" in text
    for task, row in found.record["benchmark"]["tasks"].items():
        assert f"| {task} | {row['speedup']:.2f} | {row['test_ratio']:.2f} |" in text
        limits = text[text.index("## Limits") :]
        assert (task in limits) == (row["speedup"] < 1 or row["test_ratio"] > 1.05)
    stored = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert stored == json.loads(json.dumps(found.record["config"]))
    assert f"{found.record['cost']['inner_steps']:,}" in text


def test_a_card_of_no_record_says_so():
    text = model_card.card(untold(), "mine")
    assert "license" not in front_matter(text)
    assert "22 weights" in text
    for said in ("Not recorded.", "Not scored.", "Not measured.", "Not stated"):
        assert said in text


def test_a_folder_loads_as_its_source_does(tmp_path):
    path = model_card.write("celo2", tmp_path / "card")
    assert sorted(each.name for each in path.parent.iterdir()) == ["README.md", "weights.npz"]
    params = {"w": jnp.ones((4, 3))}
    updates = []
    for source in ("celo2", path.parent):
        tx = veldt.learned_optimizer(source, num_steps=10)
        updates.append(jax.jit(tx.update)(params, tx.init(params), params)[0]["w"])
    np.testing.assert_array_equal(*updates)
    again = model_card.write(path.parent, path.parent)  # its own source, and written once more
    assert again == path


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(errors.WeightsError, match=r"other files, such as thesis\.tex"):
        model_card.write("celo2", tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "record",
    [
        {"benchmark": {"suite": "small"}},
        {"benchmark": {"suite": "small", "speedup": 1, "test_ratio": 2, "diverged": 0}},
        {"config": {"phases": [{"name": "all"}]}},
        {"cost": {"inner_steps": "many"}},
    ],
)
def test_a_record_of_another_form_is_an_error_and_not_a_traceback(record):
    strange = dataclasses.replace(untold(), record=record)
    with pytest.raises(errors.WeightsError, match="record cannot be read"):
        model_card.card(strange, "strange")
