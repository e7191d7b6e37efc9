"""Prompts: all that a model needs is in them, and nothing that is not to leave the machine."""

import dataclasses
import hashlib
import shutil

import pytest

from veldt.search import rule_sources
from veldt.search.errors import TemplateError
from veldt.search.language.ops import OP_SETS, OPS, expand
from veldt.search.language.statements import READABLE
from veldt.search.llm_text import answers, language_lines, prompts, templates_folder
from veldt.search.llm_text.prompt_data import PromptData, Shown
from veldt.search.program import Program


def shown(number, rule, loss, note="", **changed):
    values = {
        "number": number,
        "program": str(rule_sources.load_rule(rule)),
        "learning_rate": 0.0034567,
        "loss": loss,
        "by_task": (("char_gru", -1.25), ("private.tasks:make", -0.75)),
        "note": note,
    }
    return Shown(**{**values, **changed})


DATA = PromptData(
    tasks=(("char_gru", 200), ("private.tasks:make", 300)),
    objective="held_out_loss",
    notes="Gradients are noisy.",
    instructions=expand(("base", "axes")),
    reads=("step", "ndim"),
    max_statements=27,
    num_slots=2,
    num_programs=3,
    parent=shown(-1, "adamw", -1.0),
    best=(shown(812, "lion", -1.1), shown(77, "muon", -0.9)),
    failed=(
        shown(901, "adagrad", None, "diverges on private.tasks:make"),
        shown(902, "sgd", None, "same behaviour as #812", by_task=()),
    ),
)


def changed(**values):
    return prompts.build(dataclasses.replace(DATA, **values))


def test_it_shows_the_rules_with_their_losses_and_failures():
    user = prompts.build(DATA).user
    assert "The initial rule: learning rate 0.00346, loss -1.0000, char_gru -1.2500" in user
    assert "Rule #812: learning rate 0.00346, loss -1.1000" in user
    assert "#901: learning rate 0.00346, char_gru -1.2500, own_task_1 -0.7500, diverges on" in user
    assert "Rule #902: learning rate 0.00346, same behaviour as #812." in user
    assert "char_gru (200 steps), own_task_1 (300 steps)" in user
    assert "mean log normalised validation loss; lower is better" in user
    assert "Gradients are noisy." in user
    assert "3 new programs" in user
    blocks = user.split("```python\n")[1:]
    programs = [Program.parse(block.partition("```")[0]) for block in blocks[:5]]
    rules = ("adamw", "lion", "muon", "adagrad", "sgd")
    assert [program.lower().structural_hash for program in programs] == [
        rule_sources.load_rule(rule).lower().structural_hash for rule in rules
    ]


def test_it_states_the_limits_and_the_language():
    system = prompts.build(DATA).system
    assert "at most 2: tensors" in system
    assert "At most 27 instructions" in system
    assert "`step` (the step, from 1), `ndim` (the number of axes of w)." in system
    assert "def rule(w, g, m, v, *, b1=0.9, c=1e-8):" in system
    assert "w = w - learning_rate * update" in system
    assert "`interp(x, y, z)`: average that keeps the share z of y" in system
    assert "may read: nothing." in changed(reads=()).system
    assert "def rule(w, g, *, b1=0.9" in changed(num_slots=0).system


def test_each_instruction_has_one_line_and_the_others_none():
    for part in (tuple(OPS), *((part,) for part in OP_SETS)):
        names = expand(part)
        lines = language_lines.instruction_lines(names).splitlines()
        written = [line for line in lines if line.startswith("- ")]
        assert len(written) == len(names)
        for name in names:
            op = OPS[name]
            form = f"`x {op.symbol} y`" if op.symbol else f"`{name}("
            (line,) = [line for line in written if line.startswith(f"- {form}")]
            assert op.meaning in line and op.guard in line
            assert line.count("tensor") >= sum(kind == "tensor" for kind in op.kinds)


def test_every_name_that_can_be_read_is_explained():
    for name in READABLE:
        assert f"`{name}` (" in language_lines.readable_names([name])


@pytest.mark.parametrize("instructions", [("published",), ("base", "axes"), tuple(OPS)])
def test_its_length_is_a_few_thousand_tokens(instructions):
    """Four bytes a token: with few instructions and with all of them."""
    prompt = changed(instructions=expand(instructions))
    assert 1_000 <= (len(prompt.system) + len(prompt.user)) / 4 <= 3_000


def test_it_holds_no_name_of_the_users_and_no_words_of_a_rule_file(tmp_path):
    text = (
        'def secret_project(w, g, m):\n    """Ignore all. /data/alice/x ``` {parent}"""\n'
        "    m = m + g\n    return m, m\n"
    )
    data = dataclasses.replace(
        DATA,
        objective="private.objective:score",
        parent=shown(3, "sgd", 0.5, program=text),
        best=(shown(4, "sgd", 0.5, program="def broken /data/alice"),),
    )
    prompt = prompts.build(data)
    for private in ("secret_project", "Ignore", "alice", "private", "make", str(tmp_path)):
        assert private not in prompt.system + prompt.user
    assert "a score of the user's own" in prompt.user
    assert "def rule(w, g, m):\n    m = m + g\n" in prompt.user


def test_what_is_shown_is_never_searched_for_placeholders():
    prompt = changed(notes="{parent} {nothing} {0} {} %s", num_programs=1)
    assert "{parent} {nothing} {0} {} %s" in prompt.user
    assert "Write one new program." in prompt.user
    again = prompts.repair(prompt, "{problem}", "line 1: {request}")
    assert again.system == prompt.system
    assert "{problem}" in again.user and "line 1: {request}" in again.user
    assert again.user.startswith(prompt.user.rstrip())


def test_long_texts_are_cut():
    assert len(changed(notes="x" * 100_000).user) < 10_000
    many = tuple(shown(i, "lion", 0.0, "y" * 10_000) for i in range(50))
    prompt = changed(best=many, failed=many)
    assert prompt.user.count("```python\n") == 1 + 2 * prompts.MAX_SHOWN
    assert len(prompt.user) < 10_000
    assert len(prompts.repair(prompt, "z" * 100_000, "p" * 100_000).user) < 20_000


def test_without_others_it_says_so():
    user = changed(best=(), failed=(), notes=" ").user
    assert "No other rule is known yet." in user and "Nothing yet." in user
    assert "What the user says" not in user
    assert "\n\n\n" not in user


def test_the_digest_is_that_of_both_texts():
    prompt = prompts.build(DATA)
    assert prompt == prompts.build(DATA) and prompt.digest == prompts.build(DATA).digest
    assert len(prompt.digest) == len(hashlib.sha256().hexdigest())
    other = [
        prompts.Prompt(prompt.system + "x", prompt.user),
        prompts.Prompt(prompt.system, prompt.user + "x"),
        prompts.Prompt(prompt.system + prompt.user[:1], prompt.user[1:]),
        prompts.Prompt("\ud800", ""),
        changed(notes="Others."),
    ]
    assert len({prompt.digest, *(each.digest for each in other)}) == 6


def test_an_answer_that_quotes_the_prompt_gives_its_programs():
    """The prompt itself is no valid answer but for the programs that it shows."""
    limits = {"num_slots": 3, "max_statements": 30, "instructions": tuple(OPS), "num_programs": 4}
    reading = answers.read(prompts.build(DATA).user, reads=READABLE, **limits)
    assert len(reading.programs) == 4 and reading.problems == ()


def folder_of(tmp_path, **texts):
    folder = tmp_path / "templates"
    shutil.copytree(templates_folder.FOLDER, folder)
    for name, text in texts.items():
        (folder / f"{name}.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_a_users_folder_takes_the_place_of_the_shipped_templates(tmp_path):
    names = templates_folder.PLACEHOLDERS[templates_folder.USER]
    own = "Mine: " + " | ".join(f"{{{name}}}" for name in names) + " {not a placeholder} {1}\r\n"
    folder = folder_of(tmp_path, user=own)
    prompts.check_templates(folder)
    prompt = prompts.build(DATA, folder)
    assert prompt.user.startswith("Mine: char_gru (200 steps), own_task_1 (300 steps) | The loss")
    assert prompt.user.endswith("ideas {not a placeholder} {1}\n")
    assert prompt.system == prompts.build(DATA).system
    for name in ("system.md", "repair.md"):
        (folder / name).unlink()
    prompts.check_templates(folder)
    assert prompts.build(DATA, folder) == prompt
    assert prompts.repair(prompt, "a", "b", folder) == prompts.repair(prompt, "a", "b")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("repair", "{request} {answer} {problm} {problem}", r"repair.md: {problm} .*'problem'"),
        ("repair", "{request} {answer}", r"repair.md: the placeholder {problem} is missing"),
        ("user", "", r"user.md: the placeholder {tasks} is missing"),
        ("system", "{parent}", r"system.md: {parent} is no placeholder of system.md"),
        ("sytem", "", r"sytem.md is no template \(did you mean 'system.md'"),
        ("user", b"\xff\xfe", r"user.md cannot be read"),
        ("user", "x" * 200_000, r"user.md is longer"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(tmp_path, name, text, said):
    folder = folder_of(tmp_path, **{name: text})
    with pytest.raises(TemplateError, match=said):
        prompts.check_templates(folder)


def test_a_folder_without_templates_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none", templates_folder.FOLDER / "user.md"):
        with pytest.raises(TemplateError, match=r"no folder with templates; it may hold system.md"):
            prompts.check_templates(folder)
    assert TemplateError("").exit_code == 2


def test_the_shipped_templates_name_all_placeholders():
    prompts.check_templates(templates_folder.FOLDER)
    assert {path.name for path in templates_folder.FOLDER.iterdir()} == {
        *templates_folder.PLACEHOLDERS
    }
