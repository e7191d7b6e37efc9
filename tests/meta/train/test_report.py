"""The report of a meta-training: true to the files, whole in one page, and it runs nothing."""

import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
import yaml

from tests.meta import toys
from tests.web import Page
from veldt.learned_opt import registry, weight_files
from veldt.meta import errors
from veldt.meta.train import config, log, meta_figures, report
from veldt.tasks.common import versions
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk import run_directory

FAMILIES = ("perceptron 64-8-10", "convolution <b>4-8</b>", "language & chains")
CHECKS = ("digits_mlp", "quadratic")


def settings(name="train", num_updates=60):
    """Imitation, then two phases of PES."""
    return config.MetaTrainConfig(
        "celo2",
        (
            toys.phase("imitate", 20, kind="imitation"),
            toys.phase("short", 60, lengths=(4, 8)),
            toys.phase(name, num_updates, lengths=(8, 800)),
        ),
        meta_validation=tuple(config.CheckConfig(task, 100) for task in CHECKS),
        validate_every=20,
    )


def lines(num_updates, *, bad=()):
    """What a run would write: losses that fall, with noise; imitation is another scale."""
    random = np.random.RandomState(0)
    found = []
    for update in range(num_updates + 1):
        if update % 20 == 0:
            tasks = {
                task: -0.02 * i - 1.2 * update / 140 - (update == 100)
                for i, task in enumerate(CHECKS)
            }
            score = sum(tasks.values()) / 2
            found.append({"kind": "check", "update": update, "score": score, "tasks": tasks})
        if update == num_updates:
            break
        scale = 6.0 * math.exp(-update / 8) if update < 20 else 1.2 - 0.004 * update
        losses = [scale * (1 + 0.2 * i + 0.05 * random.randn()) for i in range(len(FAMILIES))]
        if update in bad:
            losses[1] = None
        found.append(
            {
                "kind": "update", "update": update + 1, "phase": "-", "meta_loss": losses,
                "meta_grad_norm": float(np.exp(random.randn())),
                "num_nonfinite": int(update in bad), "num_completed": 1,
                "num_inner_steps": 1000, "worker_s": 36.0, "wall_s": 20.0 * (update + 1),
            }
        )  # fmt: skip
    return found


def write_run(folder, settings, lines, *, with_weights=True):
    """A run directory, as `veldt.meta.train.run_meta_training` leaves it."""
    folder.mkdir(exist_ok=True)
    text = yaml.safe_dump(codec.to_plain(settings), sort_keys=False)
    (folder / run_directory.CONFIG_FILE).write_text(text)
    (folder / log.FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if with_weights:
        rule = registry.architecture("celo2")
        facts = {"families": list(FAMILIES), "tasks": list(CHECKS)}
        record = {**facts, "versions": versions.versions()}
        found = weight_files.Weights("celo2", rule, rule.init(jax.random.key(0)), record)
        weight_files.write(folder / "weights.npz", found)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "celo2-small"
    return write_run(folder, settings(), lines(140, bad=(90, 91)))


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "deep" / "page.html"
    assert report.write_report(finished, output) == output
    assert not (finished / "report.html").exists()
    return output.read_text(encoding="utf-8")


def figures(text):
    """The figures, as XML, which holds the page to closing every element."""
    main = ET.fromstring(text[text.index("<main>") : text.index("</main>") + len("</main>")])
    return [element for element in main.iter("svg") if element.get("role") == "img"]


def test_nothing_comes_from_outside_and_nothing_runs(page):
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not {"src", "href", "xlink:href", "action", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "default-src 'none'" in page and not re.search(r"@import|url\(|https?://", page)
    assert "<b>" not in page and "convolution <b>4-8</b>" in found.text


def test_the_figures_told_are_those_of_the_files(page):
    text = Page(page).text
    size = sum(leaf.size for leaf in jax.tree.leaves(registry.architecture("celo2").init(
        jax.random.key(0))))  # fmt: skip
    for words in (
        "updates 140 of 140",
        f"meta-parameters {size:,}",
        "task families 3",
        "inner steps 140,000",
        "worker-hours 1.40",
        "wall clock 46:40",
        "50 inner steps per second",
        "came down from −0.010 to −1.867, after update 100",
        "short 60 of 60 all pes, 2 × 2 steps 4 to 8 adam, 0.1 60,000 0.60 0",
        "train 60 of 60 all pes, 2 × 2 steps 8 to 800 adam, 0.1 60,000 0.60 2",
        "veldt evaluate",
    ):
        assert words.replace("−", "-") in text.replace("−", "-"), words
    assert "has not ended" not in text


def test_every_figure_is_drawn_within_its_frame(page):
    found = figures(page)
    titles = [figure.find("title").text for figure in found]
    assert titles == [
        "distance from the expert by update",
        "meta-loss (mean loss) by update",
        "Log loss on the tasks of meta-validation by update",
        "Norm of the meta-gradient by update",
    ]
    for figure in found:
        assert figure.find("desc").text
        for path in figure.iter("path"):
            assert "nan" not in path.get("d") and "inf" not in path.get("d")
            for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.get("d")):
                assert 0 <= float(x) <= 720 and 0 <= float(y) <= 360


def test_phases_that_count_the_same_share_a_figure_and_are_parted_in_it(page):
    imitation, losses, *_ = figures(page)
    kinds = [[p.get("class") for p in figure.iter("path")] for figure in (imitation, losses)]
    assert [k.count("line bound") for k in kinds] == [0, 1]
    assert [k.count("line mean") for k in kinds] == [1, 2]
    assert [k.count("line family") for k in kinds] == [3, 6]
    assert {"short", "train"} <= {text.text for text in losses.iter("text")}


def test_families_are_told_by_their_first_and_last_updates(page, finished):
    told = [line["meta_loss"] for line in log.read(finished) if line["kind"] == "update"][20:]
    average = 120 // 40
    first, last = (np.mean([loss[2] for loss in part]) for part in (told[:3], told[-3:]))
    assert average == 3
    row = f"language & chains {first:.4f} {last:.4f} {last - first:.4f} 0"
    assert row.replace("-", "−") in Page(page).text
    assert re.search(r"convolution <b>4-8</b> [\d.]+ [\d.]+ −[\d.]+ 2", Page(page).text)


def test_an_unfinished_run_says_so_and_how_to_go_on(tmp_path):
    folder = write_run(tmp_path / "a run", settings(), lines(31), with_weights=False)
    text = Page(report.write_report(folder).read_text(encoding="utf-8")).text
    assert "has not ended" in text and "updates 31 of 140" in text
    assert f"veldt meta-train '{folder}/config.yaml' --run-dir '{folder}' --resume" in text
    assert "family 2" in text and "short 11 of 60" in text and "train 0" not in text


@pytest.mark.parametrize("num_updates", [1, 2, 20, 21])
def test_it_can_be_written_as_soon_as_there_is_an_update(tmp_path, num_updates):
    folder = write_run(tmp_path, settings(), lines(num_updates), with_weights=False)
    assert figures(report.write_report(folder).read_text(encoding="utf-8"))


def test_a_run_without_meta_validation_has_no_such_figure(tmp_path):
    blind = dataclasses.replace(settings(), meta_validation=())
    updates = [line for line in lines(140) if line["kind"] == "update"]
    text = report.write_report(write_run(tmp_path, blind, updates)).read_text(encoding="utf-8")
    assert len(figures(text)) == 3
    assert "the last weights are kept" in Page(text).text


def test_losses_that_were_never_finite_leave_a_report_all_the_same(tmp_path):
    lost = [
        {**line, "meta_loss": [None] * 3, "meta_grad_norm": 0.0}
        for line in lines(30)
        if line["kind"] == "update"
    ]
    text = report.write_report(write_run(tmp_path, settings(), lost)).read_text(encoding="utf-8")
    assert "none was finite" in text and "Every meta-gradient was zero" in text


def test_no_run_and_nothing_done_yet_are_clear_errors(tmp_path):
    with pytest.raises(errors.MetaTrainError, match="there is no meta-training in"):
        report.write_report(tmp_path)
    write_run(tmp_path, settings(), [], with_weights=False)
    with pytest.raises(errors.MetaTrainError, match="has done no update yet"):
        report.write_report(tmp_path)
    (tmp_path / log.FILE_NAME).write_text('{"kind": "update", "update": 1}\n')
    with pytest.raises(errors.MetaTrainError, match="the update 1 is not as this log has it"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_smoothing_is_the_mean_of_what_is_finite_of_the_last():
    values = np.array([1.0, math.nan, 3.0, 8.0, math.inf, math.nan])
    np.testing.assert_allclose(meta_figures.smooth(values, 2), [1.0, 1.0, 3.0, 5.5, 8.0, math.nan])
    np.testing.assert_allclose(meta_figures.smooth(values, 99)[-1], 4.0)
    assert [meta_figures.width(n) for n in (1, 79, 80, 100_000)] == [1, 1, 2, 200]


def test_a_toy_run_has_a_report(toy, tmp_path):
    toys.run_in(tmp_path, toys.settings(meta_validation=(toys.CHECK,)))
    text = Page(report.write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "updates 4 of 4" in text and "tests.meta.toys:Bowl" in text and "momentum" not in text
