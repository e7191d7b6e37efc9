"""Configs: what loads, what is refused and with which words, and the round trip."""

import dataclasses
import enum
from typing import Literal

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt import config as config_lib
from veldt import fields
from veldt.tasks.common import errors
from veldt.tasks.common.config import codec


class Color(enum.StrEnum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclasses.dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: What it is called,
            on two lines.
        weight: In grams.
    """

    name: str
    weight: float = 1.0

    def __post_init__(self):
        if self.weight < 0:
            raise ValueError(f"weight is {self.weight}; it must not be negative")


@dataclasses.dataclass(frozen=True)
class Pool:
    backend: Literal["inline", "ray"] = "inline"
    num_workers: int | None = None
    timeout_s: float = 30.0


@dataclasses.dataclass(frozen=True)
class Whole:
    seed: int
    lr: float = 1e-3
    title: str = "untitled"
    verbose: bool = False
    color: Color = Color.RED
    pool: Pool = Pool(timeout_s=5.0)
    spare: Pool | None = None
    parts: tuple[Part, ...] = (Part("a"), Part("b", 2.0))
    span: tuple[int, float] = (0, 1.0)
    odds: dict[str, float] = dataclasses.field(default_factory=lambda: {"insert": 1.0, "delete": 2})
    mixed: int | str = 0
    limit: Literal[1, 2] = 1


@pytest.fixture
def load(tmp_path):
    """Loads a text, with overrides, as a `Whole`."""

    def load(text, *overrides, cls=Whole):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return config_lib.load_config(cls, path, overrides)

    return load


@pytest.fixture
def refuse(load):
    """Returns the message with which a text is refused, without its folder."""

    def refuse(text, *overrides, cls=Whole):
        with pytest.raises(errors.ConfigError) as caught:
            load(text, *overrides, cls=cls)
        message = str(caught.value)
        return "my.yaml" + message.split("my.yaml", 1)[1] if "my.yaml" in message else message

    return refuse


def test_a_file_says_only_what_differs(load):
    assert load("seed: 3") == Whole(seed=3)
    assert load("seed: 3\npool: {num_workers: 2}") == Whole(
        seed=3, pool=Pool(num_workers=2, timeout_s=5.0)
    )
    assert load("seed: 3\nspare: {}").spare == Pool()
    assert load("seed: 3\nodds: {insert: 4}").odds == {"insert": 4.0}
    assert load("seed: 3\nparts: [{name: z}]").parts == (Part("z"),)
    assert load("", cls=Pool) == Pool()
    assert load("# nothing\n", cls=Pool) == Pool()


def test_keywords_take_the_place_of_fields(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("seed: 3\npool: {num_workers: 2}\nparts: [{name: x}, {name: y}]\n")
    base = Whole(3, pool=Pool(num_workers=2, timeout_s=5.0), parts=(Part("x"), Part("y")))
    for source in (path, base, codec.to_plain(base)):

        def load_with(source=source, **values):
            return config_lib.load_with(Whole, source, values, "make()")

        assert load_with() == base
        assert load_with(title="7", color="dark-blue", lr=2) == dataclasses.replace(
            base, title="7", color=Color.DARK_BLUE, lr=2.0
        )
        by_mapping = load_with(pool={"backend": "ray"})
        assert by_mapping == load_with(**{"pool.backend": "ray"})
        assert by_mapping.pool == Pool("ray", 2, 5.0)
        assert load_with(pool={}) == base
        assert load_with(spare={}).spare == Pool() and load_with(spare=None).spare is None
        assert load_with(spare={"num_workers": 4}).spare == Pool(num_workers=4)
        assert load_with(odds={"insert": 4}).odds == {"insert": 4.0}
        assert load_with(parts=[{"name": "z"}], span=(1, 2)).parts == (Part("z"),)
        assert load_with(**{"parts.1.weight": 5.0}).parts == (Part("x"), Part("y", 5.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, "make(): there is no field 'lrr'. Did you mean 'lr'? Allowed here: seed, lr"),
        ({"pool": {"num_worker": 1}}, "no field 'pool.num_worker'. Did you mean 'num_workers'?"),
        ({"lr": "fast"}, "make(): lr: expected a number, not the string 'fast'"),
        ({"seed": None}, "make(): seed: expected an integer, not null"),
        ({"seed": True}, "make(): seed: expected an integer, not true"),
        ({"color": "blue"}, "color: expected one of red, dark-blue, not the string 'blue'"),
        ({"parts": [{"name": "a", "weight": -1.0}]}, "weight is -1.0; it must not be negative"),
        ({"parts.3.name": "x"}, "make(): there is no '3' in a list"),
        ({"pool": 3}, "make(): pool: expected a mapping, not 3"),
    ],
)
def test_bad_keywords_are_answered(values, message):
    with pytest.raises(errors.ConfigError) as caught:
        config_lib.load_with(Whole, {"seed": 1, "parts": [{"name": "a"}]}, values, "make()")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("lr: 1e-3", "lr", 1e-3),  # A string to YAML 1.1.
        ("lr: 3E5", "lr", 3e5),
        ("lr: -.5e+1", "lr", -5.0),
        ("lr: 2", "lr", 2.0),
        ("lr: .inf", "lr", float("inf")),
        ("seed: 10_000", "seed", 10_000),
        ("seed: 010", "seed", 10),  # Octal to YAML 1.1.
        ("title: no", "title", "no"),  # A bool to YAML 1.1.
        ("title: 2026-11-22", "title", "2026-11-22"),  # A date to YAML 1.1.
        ("title: 1:30", "title", "1:30"),  # 90 to YAML 1.1.
        ('title: "5"', "title", "5"),
        ("verbose: true", "verbose", True),
        ("color: dark-blue", "color", Color.DARK_BLUE),
        ("pool: {backend: ray}", "pool", Pool("ray", timeout_s=5.0)),
        ("spare: ~", "spare", None),
        ("span: [2, 3]", "span", (2, 3.0)),
        ("mixed: 7", "mixed", 7),
        ("mixed: seven", "mixed", "seven"),
        ("limit: 2", "limit", 2),
    ],
)
def test_values_read_as_written(load, text, field, value):
    seed = "" if field == "seed" else "seed: 0\n"
    got = getattr(load(seed + text), field)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1", "my.yaml:1: seed: this key is required; expected an integer"),
        (
            "seed: 1\npool:\n  num_worker: 2",
            "my.yaml:3: pool.num_worker: unknown key. Did you mean 'num_workers'? "
            "Allowed here: backend, num_workers, timeout_s",
        ),
        ("seed: 1\nlr: fast", "my.yaml:2: lr: expected a number, not the string 'fast'"),
        ("seed: 1.5", "my.yaml:1: seed: expected an integer, not 1.5"),
        ("seed: 1e4", "my.yaml:1: seed: expected an integer, not 1e4; write 10000"),
        ("seed: true", "my.yaml:1: seed: expected an integer, not true"),
        ("seed: .inf", "my.yaml:1: seed: expected an integer, not .inf"),
        ("seed:", "my.yaml:1: seed: expected an integer, not null"),
        ("seed: 1\ntitle: 5", "my.yaml:2: title: expected a string, not 5"),
        (
            "seed: 1\nverbose: yes",
            "my.yaml:2: verbose: expected true or false, not the string 'yes'",
        ),
        ("seed: 1\nlr: .nan", "my.yaml:2: lr: expected a number, not the string '.nan'"),
        (
            "seed: 1\ncolor: reed",
            "my.yaml:2: color: expected one of red, dark-blue, not the string 'reed'. "
            "Did you mean 'red'?",
        ),
        (
            "seed: 1\npool: {backend: rai}",
            "my.yaml:2: pool.backend: expected one of inline, ray, not the string 'rai'. "
            "Did you mean 'ray'?",
        ),
        (
            "seed: 1\npool: {num_workers: two}",
            "my.yaml:2: pool.num_workers: expected an integer or null, not the string 'two'",
        ),
        ("seed: 1\npool: 3", "my.yaml:2: pool: expected a mapping, not 3"),
        ("seed: 1\nspare: {backnd: ray}", "my.yaml:2: spare.backnd: unknown key. Did you mean"),
        (
            "seed: 1\nparts:\n- {name: a}\n- {weight: 2}",
            "my.yaml:4: parts.1.name: this key is required; expected a string",
        ),
        (
            "seed: 1\nparts:\n- name: a\n  weight: -2",
            "my.yaml:3: parts.0: weight is -2.0; it must not be negative",
        ),
        (
            "seed: 1\nparts: {name: a}",
            "my.yaml:2: parts: expected a list (each a mapping), not a mapping",
        ),
        ("seed: 1\nspan: [1]", "my.yaml:2: span: expected 2 values, not the 1 given"),
        ("seed: 1\nodds: {insert: x}", "my.yaml:2: odds.insert: expected a number, not the string"),
        ("seed: 1\nodds: [1]", "my.yaml:2: odds: expected a mapping (each a number), not a list"),
        ("seed: 1\nlr: 2\nseed: 3", "my.yaml:3: seed: this key is given twice"),
        (
            "seed: 1\npool: {backend: ray, backend: ray}",
            "my.yaml:2: pool.backend: this key is given",
        ),
        ("seed: 1\n? [a]\n: 2", "my.yaml:2: the config: a key must be a plain word"),
        ("- 1", "my.yaml:1: the config: expected a mapping, not a list"),
        ("seed: [1", "my.yaml:1: not valid YAML: expected ',' or ']'"),
        ("seed: 1\n\tlr: 2", "my.yaml:2: not valid YAML: found character '\\t'"),
        ("seed: 1\n---\nseed: 2", "my.yaml:2: not valid YAML: but found another document"),
        ("seed: \x00", "my.yaml: not valid YAML: unacceptable character"),
        ("[" * 20_000, "my.yaml: not valid YAML: maximum recursion"),
        ("seed: *x", "my.yaml:1: not valid YAML: found undefined alias"),
        (
            "seed: !!python/object/apply:os.getcwd []",
            "my.yaml:1: seed: expected an integer, not a list",
        ),
        ("seed: !!int x", "my.yaml:1: seed: expected an integer, not x"),
        ("seed: !!float x", "my.yaml:1: seed: expected an integer, not x"),
        ("seed: !mine 3", "my.yaml:1: seed: expected an integer, not a value tagged !mine"),
        ("seed: 1\nlimit: 3", "my.yaml:2: limit: expected one of 1, 2, not 3"),
    ],
)
def test_what_is_wrong_is_named(refuse, text, message):
    assert refuse(text).startswith(message)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--lr", "1e-2"], {"lr": 1e-2}),
        (["--lr=-3"], {"lr": -3.0}),
        (["--lr", "-3"], {"lr": -3.0}),
        (["--title", "123"], {"title": "123"}),
        (["--title", "a: [b"], {"title": "a: [b"}),
        (["--title="], {"title": ""}),
        (["--pool.num-workers", "2"], {"pool": Pool("ray", 2, 5.0)}),
        (["--pool.num_workers=null"], {"pool": Pool("ray", None, 5.0)}),
        (["--pool", "{timeout_s: 1}"], {"pool": Pool(timeout_s=1.0)}),
        (["--spare.backend", "ray"], {"spare": Pool("ray")}),
        (["--spare", "{}", "--spare.num-workers", "1"], {"spare": Pool(num_workers=1)}),
        (["--parts", "[{name: x}]"], {"parts": (Part("x"),)}),
        (["--parts.1.weight", "9"], {"parts": (Part("a"), Part("b", 9.0))}),
        (["--span.0", "4"], {"span": (4, 1.0)}),
        (["--odds.insert", "5"], {"odds": {"insert": 5.0, "delete": 2.0}}),
        (["--odds.re-order", "5"], {"odds": {"insert": 1.0, "delete": 2.0, "re-order": 5.0}}),
        (["--lr", "1", "--lr", "2"], {"lr": 2.0}),
    ],
)
def test_overrides(load, words, changed):
    text = "seed: 3\npool: {backend: ray, num_workers: 1}"
    assert load(text, *words) == dataclasses.replace(load(text), **changed)


def test_an_override_opens_a_part_that_the_file_sets_to_null(load):
    assert load("seed: 1\nspare: null", "--spare.backend", "ray").spare == Pool("ray")


def test_an_override_supplies_a_required_key(load):
    assert load("lr: 2", "--seed", "5") == Whole(seed=5, lr=2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lrr", "1"], "--lrr: unknown option. Did you mean 'lr'? Allowed here: seed, lr, title"),
        (
            ["--pool.num-worker", "1"],
            "--pool.num-worker: unknown option. Did you mean 'num-workers'? Allowed here: backend",
        ),
        (["--lr", "fast"], "--lr: expected a number, not the string 'fast'"),
        (["--parts.0.weight", "-1"], "--parts.0.weight: parts.0: weight is -1.0"),
        (["--parts.7.weight", "1"], "--parts.7.weight: there is no '7' in a list (each a mapping)"),
        (["--span", "[1, 2, 3]", "--span.2", "4"], "--span.2: there is no '2' in a list"),
        (["--span", "[1]", "--span.1", "4"], "--span.1: there is no '1' in a list"),
        (["--seed.x", "1"], "--seed.x: there is no 'x' in an integer"),
        (["--parts", "[{name: a"], "--parts: not valid YAML"),
        (["--parts", "[{nam: a}]"], "--parts: parts.0.nam: unknown key. Did you mean 'name'?"),
        (["--lr"], "--lr needs a value: --lr value"),
        (["--lr", "--seed", "3"], "--lr needs a value: --lr value"),
        (["lr", "3"], "unexpected argument 'lr'; a field is set by --field value"),
        (["-3"], "unexpected argument '-3'"),
    ],
)
def test_wrong_overrides_are_named(refuse, words, message):
    assert refuse("seed: 3", *words).startswith(message)


def test_overrides_leave_a_shared_anchor_alone(load):
    loaded = load("seed: 1\npool: &p {timeout_s: 2}\nspare: *p", "--spare.timeout-s", "3")
    assert (loaded.pool.timeout_s, loaded.spare.timeout_s) == (2.0, 3.0)


texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8),
    st.sampled_from(
        ["1e-3", "1", "no", "null", "~", "", "true", ".inf", "0x1f", "a: b", "- x", "'"]
    ),
    st.sampled_from(["1_0", "010", "1:30", "2026-11-22", "# c", " x ", "two\nlines", "=", "<<"]),
)
floats = st.floats(allow_nan=False)
pools = st.builds(
    Pool, st.sampled_from(["inline", "ray"]), st.none() | st.integers(), st.floats(0, 1e20)
)


@hypothesis.given(
    st.builds(
        Whole,
        seed=st.integers(),
        lr=floats,
        title=texts,
        verbose=st.booleans(),
        color=st.sampled_from(Color),
        pool=pools,
        spare=st.none() | pools,
        parts=st.lists(st.builds(Part, texts, st.floats(0)), max_size=3).map(tuple),
        span=st.tuples(st.integers(), floats),
        odds=st.dictionaries(texts, floats, max_size=3),
        mixed=st.integers() | st.sampled_from(["1", "x"]),
        limit=st.sampled_from([1, 2]),
    )
)
def test_dump_and_load_round_trip(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(codec.dump(config), encoding="utf-8")
    assert config_lib.load_config(Whole, path) == config


def test_shipped_configs_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "quick.yaml").write_text("# A quick one.\nseed: 1\n")
    (tmp_path / "plain.yaml").write_text("seed: 2\nlrr: 1\n")
    monkeypatch.setattr(config_lib, "CONFIG_DIR", tmp_path)
    assert config_lib.list_configs(tmp_path) == (
        config_lib.ConfigInfo("plain", ""),
        config_lib.ConfigInfo("quick", "A quick one."),
    )
    assert config_lib.load_config(Whole, "quick") == Whole(seed=1)
    with pytest.raises(errors.ConfigError, match=r"^configs/plain.yaml:2: lrr: unknown key"):
        config_lib.load_config(Whole, "plain")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(errors.ConfigError, match="there is no config named 'no-such-config'"):
        config_lib.load_config(Whole, "no-such-config")
    with pytest.raises(errors.ConfigError, match=r"there is no config file nowhere.yaml"):
        config_lib.load_config(Whole, "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(errors.ConfigError, match=r"binary.yaml: cannot be read"):
        config_lib.load_config(Whole, tmp_path / "binary.yaml")


def test_fields_are_listed_for_help():
    rows = {row.option: row for row in fields.list_fields(Whole)}
    assert rows["--seed"].default == "required"
    assert rows["--lr"] == fields.FieldInfo("--lr", "a number", "0.001", "")
    assert rows["--pool.num-workers"].kind == "an integer or null"
    assert rows["--pool.num-workers"].default == "null"
    assert rows["--pool.timeout-s"].default == "5.0"  # That of `Whole`, and not of `Pool`.
    assert rows["--parts"].default == "[{name: a, weight: 1.0}, {name: b, weight: 2.0}]"
    assert "--pool" not in rows
    assert [key.option for key in rows["--parts"].keys] == ["name", "weight"]
    parts = {row.option: row.description for row in fields.list_fields(Part)}
    assert parts == {"--name": "What it is called, on two lines.", "--weight": "In grams."}
