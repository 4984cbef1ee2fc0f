"""What a finished run leaves behind, and that it is the same each time."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.stages.jobs.models import load_model
from gradshard.storage.formats import bitplanes, results
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.sign_reader import open_store
from tests.helpers.projects import new_project

CPU = torch.device("cpu")


def matrix(project):
    return pq.read_table(project.path / "evaluation/10/matrix.parquet").to_pylist()


def model(project, name, group="static"):
    data = open_dataset(project.path / "data/npz.zarr")
    return load_model(project.path / f"models/{group}/{name}.safetensors", "D", data, CPU)


def test_the_matrix_has_every_attack_from_every_source_against_every_target(finished_project):
    rows = matrix(finished_project)
    evaluation = finished_project.params()["evaluation"]
    expected = {(t, "", "clean") for t in evaluation["targets"]}
    expected |= {
        (target, source, attack)
        for attack, sources in evaluation["attacks"].items()
        for source in sources
        for target in evaluation["targets"]
    }
    expected |= {(target, "any", "worst_case") for target in evaluation["targets"]}
    assert {(r["target"], r["source"], r["attack"]) for r in rows} == expected
    assert len(rows) == len(expected)


def test_a_worst_case_counts_an_example_as_right_only_if_it_always_is(finished_project):
    table = pq.read_table(finished_project.path / "evaluation/10/examples.parquet").to_pylist()
    right = {}
    for example in table:
        if example["attack"] != "worst_case":
            key = (example["target"], example["example"])
            right[key] = right.get(key, True) and example["correct"]
    worst = {(e["target"], e["example"]): e["correct"] for e in table if e["attack"] == "worst_case"}
    assert worst == right
    assert 0 < sum(worst.values()) < len(worst)


def test_every_error_rate_counts_the_examples_behind_it(finished_project):
    examples = pq.read_table(finished_project.path / "evaluation/10/examples.parquet").to_pylist()
    wrong = {}
    for example in examples:
        key = (example["target"], example["source"], example["attack"])
        wrong.setdefault(key, {})[example["example"]] = not example["correct"]
    for row in matrix(finished_project):
        found = wrong[row["target"], row["source"], row["attack"]]
        assert sorted(found) == list(range(120))
        assert sum(found.values()) == row["errors"]
        assert row["error_rate"] == row["errors"] / row["n"] == row["errors"] / 120
        assert row["ci_low"] <= row["error_rate"] <= row["ci_high"]


def test_of_a_sample_attacks_are_measured_and_of_all_images_what_the_paper_measures_on_them(copied_project, gradshard):
    project = copied_project
    project.edit(lambda params: params["evaluation"].update(sample=50, top=[1, 3], label="least_likely"))
    assert gradshard(project, "evaluate")[0] == 0
    rows = matrix(project)
    own = [row for row in rows if row["attack"] == "clean" or (row["attack"], row["source"]) == ("fgsm", row["target"])]
    assert {row["n"] for row in own} == {120}
    assert {row["n"] for row in rows if row not in own} == {50}
    assert {row["label"] for row in rows} == {"", "least_likely"}
    keys = [(row["target"], row["source"], row["attack"], row["top"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * len(matrix(project)) / 2
    errors = {key: row["error_rate"] for key, row in zip(keys, rows, strict=True)}
    assert all(errors[(*key, 3)] <= errors[(*key, 1)] for *key, top in keys if top == 1)
    worst = {key[0]: value for key, value in errors.items() if key[2] == "worst_case" and key[3] == 1}
    assert all(worst[t] >= errors[t, "B", "fgsm", 1] for t in worst)
    assert gradshard(project, "report")[0] == 0
    assert "Error rates, exact gradient, top 3" in (project.path / "report/index.html").read_text()


def test_an_error_rate_is_what_the_saved_models_give(finished_project):
    test = open_dataset(finished_project.path / "data/npz.zarr").test
    images, labels = (torch.from_numpy(part) for part in test.load())
    source, target = model(finished_project, "B").module, model(finished_project, "A_adv-10", "robust").module
    adversarial = fgsm(source, to_unit_range(images), labels, epsilon=0.3)
    errors = int((target(adversarial).argmax(1) != labels).sum())
    (row,) = (r for r in matrix(finished_project) if (r["target"], r["source"], r["attack"]) == ("A_adv", "B", "fgsm"))
    assert row["errors"] == errors


def test_metrics_are_the_columns_of_table_4(finished_project):
    metrics = json.loads((finished_project.path / "evaluation/10/metrics.json").read_text())
    assert set(metrics) == {"A_adv", "A_adv-ens", "A_adv@1", "A_adv-ens@1"}
    assert set(metrics["A_adv-ens"]) == {"clean", "fgsm", "rand_fgsm", "fgsm_B", "ifgsm_B", "rand_fgsm_B"}


def test_curves_and_counts_of_live_batches_are_written(finished_project):
    training = finished_project.path / "training"
    counts = {name: json.loads((training / f"{name}.json").read_text()) for name in ("A", "A_adv-10", "A_adv-ens-10")}
    assert "live_steps" not in counts["A"]
    assert counts["A_adv-10"]["live_share"] == 1
    steps = 3 * 19
    assert counts["A_adv-ens-10"]["steps"] == steps
    assert abs(counts["A_adv-ens-10"]["live_steps"] - steps / 4) < 4 * np.sqrt(steps * 3 / 16)
    rows = list(csv.DictReader((training / "A_adv-ens-10.tsv").open(), delimiter="\t"))
    assert [int(row["step"]) for row in rows] == [19, 25, 38, 50, 57]
    live = sum(float(row["live_share"]) * n for row, n in zip(rows, (19, 6, 13, 12, 7), strict=True))
    assert round(live) == counts["A_adv-ens-10"]["live_steps"]


def test_a_snapshot_is_the_model_after_that_epoch(finished_project, tmp_path, digits, gradshard):
    """A run of one epoch ends with the weights that a longer run passes through."""
    short = new_project(tmp_path / "short", digits)
    short.edit(lambda params: params["robust"]["A_adv"].update(epochs=1, snapshots=[1]))
    short.edit(lambda params: params["evaluation"].update(targets=["A"], attacks={}, illustrated=[]))
    assert gradshard(short, "prepare")[0] == 0
    assert gradshard(short, "train-robust", "A_adv")[0] == 0
    snapshot = model(finished_project, "A_adv-10/A_adv-10@1", "snapshots")
    assert snapshot.digest == model(short, "A_adv-10", "robust").digest
    assert snapshot.digest == model(short, "A_adv-10/A_adv-10@1", "snapshots").digest


def test_stored_signs_are_those_of_the_saved_model(finished_project):
    data = open_dataset(finished_project.path / "data/npz.zarr")
    store = open_store(finished_project.path / "signs/C.zarr")
    loaded = model(finished_project, "C")
    assert store.manifest.model.digest == loaded.digest
    images, _ = data.train.load()
    x = to_unit_range(torch.from_numpy(images)).requires_grad_()
    logits = loaded.module(x)
    predicted = logits.argmax(1)
    assert np.array_equal(store.load_labels(), predicted.numpy())
    others = logits.scatter(1, predicted[:, None], -torch.inf).logsumexp(1)
    (others - logits.gather(1, predicted[:, None])[:, 0]).sum().backward()
    signs = bitplanes.unpack(store.load(), 784)
    assert (signs != x.grad.sign().flatten(1).numpy()).mean() <= 1e-4


def test_a_store_in_bf16_says_so_with_its_agreement_and_can_be_mended(copied_project, gradshard):
    project = copied_project
    project.edit(lambda params: params["signs"]["D"].update(precision="bf16"))
    assert gradshard(project, "precompute", "D")[0] == 0
    manifest = open_store(project.path / "signs/D.zarr").manifest
    assert manifest.direction.dtype == "bfloat16"
    assert manifest.direction.agreement.rows == 256
    assert 0.9 < manifest.direction.agreement.share < 1
    assert (
        f"{manifest.direction.agreement.share:.3%} as in float64"
        in (project.path / "signs/D.zarr/README.md").read_text()
    )
    shard = project.path / "signs/D.zarr/signs/c/0/0/0"
    before = shard.read_bytes()
    shard.write_bytes(before[:-1])
    inputs = ("--model", "models/static/D.safetensors", "--dataset", "data/npz.zarr")
    assert gradshard(project, "store", "repair", "signs/D.zarr", *inputs)[0] == 0
    assert shard.read_bytes() == before
    assert open_store(project.path / "signs/A.zarr").manifest.direction.agreement is None


@pytest.mark.slow
def test_every_output_has_the_same_bytes_in_another_run(finished_project, tmp_path, digits, gradshard):
    again = new_project(tmp_path / "again", digits)
    for stage in ("prepare", "train-static", "precompute", "train-robust", "evaluate", "analyze", "blackbox", "report"):
        models = {"train-static": "ABCD", "precompute": "ACD", "train-robust": ("A_adv", "A_adv-ens")}.get(stage, [()])
        for name in models:
            assert gradshard(again, stage, *([name] if name else []))[0] == 0
    outputs = ("data", "models", "signs", "training", "evaluation", "analysis", "blackbox", "report")
    for folder in outputs:
        for path in sorted((finished_project.path / folder).rglob("*")):
            if path.is_file():
                other = again.path / path.relative_to(finished_project.path)
                assert other.read_bytes() == path.read_bytes(), other


def test_no_partial_work_is_left(finished_project):
    left = [p.name for p in (finished_project.path / ".partial").iterdir() if not p.name.endswith(".lock")]
    assert left == []


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img", "link", "path", "use", "image", "rect", "line"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture
def page(finished_project):
    parsed = _Page()
    parsed.feed((finished_project.path / "report/index.html").read_text())
    return parsed


def test_the_report_is_one_whole_page_that_asks_for_nothing_else(page, finished_project):
    assert page.open == []
    pages = {link.partition("#")[0] for link in page.links if not link.startswith(("#", "data:"))}
    # No clone of gradshard and no project that DVC runs: the pages of the installed package.
    assert all(Path(unquote(urlparse(link).path)).is_file() for link in pages if link.startswith("file:"))
    assert {link.partition(":")[0] for link in pages} == {"file"}
    text = (finished_project.path / "report/index.html").read_text()
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not [
        url
        for url in outside
        if not url.startswith(
            ("http://purl.org/", "http://creativecommons.org/", "https://matplotlib.org", "http://www.w3.org/")
        )
    ]


def test_the_report_shows_tables_findings_figures_parameters_and_digests(page, finished_project):
    text = " ".join(page.text)
    for part in (
        "FGSM examples transferred between models",
        "FGSM and RAND+FGSM, white box",
        "Adversarial training and ensemble adversarial training",
        "A_adv-ens, 3 epochs",
        "errs more on FGSM transferred from B than on its own",
        "sign, A_adv",
        "clean_weight: 0.5",
        open_dataset(finished_project.path / "data/npz.zarr").test.digest,
        model(finished_project, "A").digest,
        open_store(finished_project.path / "signs/A.zarr").manifest.content,
    ):
        assert part in text, part


def test_the_report_shows_the_error_rates_of_the_matrix(page, finished_project):
    rows = {(r["target"], r["source"], r["attack"]): r for r in matrix(finished_project)}
    shown = " ".join(page.text)
    for target in ("A_adv", "A_adv-ens"):
        assert f"{100 * rows[target, 'B', 'ifgsm']['error_rate']:.1f}" in shown


def test_the_parameters_that_a_report_came_from_are_read_back(finished_project):
    params = read_params(finished_project.path / "params.yaml")
    for file, of in (
        ("evaluation/10/provenance.json", {"include": {"attack", "evaluation"}}),
        ("report/provenance.json", {"exclude": {"device"}}),
    ):
        provenance = json.loads((finished_project.path / file).read_text())
        assert provenance["params"] == json.loads(params.model_dump_json(by_alias=True, **of))
        assert set(provenance["models"]) >= {"A", "A_adv-10", "A_adv-ens-10@1"}
        assert set(provenance["stores"]) == {"A", "C", "D"}


def test_diagnostics_are_those_of_the_matrix_and_link_to_their_pages(finished_project):
    found = json.loads((finished_project.path / "evaluation/10/diagnostics.json").read_text())
    rows = results.read_matrix(finished_project.path / "evaluation/10/matrix.parquet")
    errors = {(r["target"], r["source"], r["attack"]): r["errors"] for r in rows}
    assert list(found["models"]) == ["A", "A_adv", "A_adv-ens"]
    page = (Path(__file__).parents[2] / "docs/diagnostics.md").read_text().lower().replace(" ", "-")
    for name, gradients in found["models"].items():
        assert list(gradients) == ["exact"]
        model = gradients["exact"]
        assert dict(model["curve"])[0.0] == errors[name, "", "clean"]
        assert dict(model["curve"])[0.3] == model["errors"]["fgsm"] == errors[name, name, "fgsm"]
        assert dict(model["transferred"])[0.3] == errors[name, "B", "fgsm"]
        assert model["errors"]["rand_fgsm"] == errors[name, name, "rand_fgsm"]
        assert model["n"] == 120
        assert all(f"## {flag['name']}".replace(" ", "-") in page for flag in model["flags"])
    report = (finished_project.path / "report/index.html").read_text()
    assert "Can this gradient be trusted?" in report


def test_black_box_results_count_queries_and_examples(finished_project):
    found = json.loads((finished_project.path / "blackbox/10/results.json").read_text())
    assert list(found["targets"]) == ["A_adv", "A_adv-ens"]
    for target in found["targets"].values():
        assert [row["queries"] for row in target["substitute"]] == [50, 100, 200]
        assert [row["queries_per_example"] for row in target["estimation"]["estimated"]] == [2 * 98, 2 * 392]
        assert {row["n"] for row in target["substitute"]} == {60}
        assert [[tried["epsilon"] for tried in row["sweep"]] for row in target["substitute"]] == 3 * [[0.1, 0.3, 0.5]]
        assert all({"epsilon": 0.3, "errors": row["errors"]} in row["sweep"] for row in target["substitute"])
        assert target["estimation"]["true_gradient"]["n"] == 5
    forest = found["forest"]["rows"]
    assert [row["source"] for row in forest] == ["", "A", "A"]
    assert [row.get("epsilon") for row in forest] == [None, 0.2, 0.3]
    assert {row["n"] for row in forest} == {120}
    assert {row["right"] for row in forest[1:]} == {120 - forest[0]["errors"]}
    page = (finished_project.path / "report/index.html").read_text()
    assert "FGSM from A, exact, ε = 0.2" in page
    assert "A_adv, ε = 0.5" in page


def test_figure_2_is_about_images_that_the_source_alone_fools_a_snapshot_on(finished_project):
    errors = {(r["target"], r["source"], r["attack"]): r["errors"] for r in matrix(finished_project)}
    found = json.loads((finished_project.path / "analysis/10/gradients.json").read_text())["models"]
    for name in ("A", "A_adv", "A_adv@1"):
        counts = found[name]["directions"]
        assert (counts["source"], counts["n"]) == ("B", 120)
        assert counts["right"] == 120 - errors[name, "", "clean"]
        assert counts["other"] - counts["other_alone"] == counts["own"] - counts["own_alone"]
        assert counts["other"] <= errors[name, "B", "fgsm"] <= counts["other"] + errors[name, "", "clean"]
    with np.load(finished_project.path / "analysis/10/planes.npz") as planes:
        assert len(planes["rows"]) == min(2, found["A_adv@1"]["directions"]["other_alone"])


def test_queried_images_are_drawn_by_a_seed_and_do_not_overlap(copied_project, gradshard):
    def asked(seed):
        copied_project.edit(lambda params: params["blackbox"].update(seed=seed, targets=["A_adv"], forest=None))
        assert gradshard(copied_project, "blackbox")[0] == 0
        return json.loads((copied_project.path / "blackbox/10/results.json").read_text())["rows"]

    first = asked(1)
    assert len(first["own"]) == 50
    assert len(first["attacked"]) == 60
    assert len({*first["own"], *first["attacked"]}) == 110
    assert first["attacked"] != list(range(50, 110))
    assert asked(1) == first
    assert asked(2) != first


def test_the_table_of_a_readme_is_made_from_the_matrix(finished_project, tmp_path, gradshard):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- gradshard table: begin -->\nold\n<!-- gradshard table: end -->\nafter\n")
    assert gradshard(finished_project, "table", "evaluation/10/matrix.parquet", "--into", str(readme))[0] == 0
    text = readme.read_text()
    rates = {(r["target"], r["source"], r["attack"]): r["error_rate"] for r in matrix(finished_project)}
    assert f"{100 * rates['A_adv-ens', 'B', 'ifgsm']:.1f}" in text
    assert text.startswith("before\n")
    assert text.endswith("-->\nafter\n")
    assert "old" not in text
    readme.write_text("no marks")
    code, said = gradshard(finished_project, "table", "evaluation/10/matrix.parquet", "--into", str(readme))
    assert code == 2
    assert "has no place for a table" in said
    assert readme.read_text() == "no marks"
