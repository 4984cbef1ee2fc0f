"""The commands for stores: what they print, their JSON, and their exit codes 0, 1 and 2."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from torch import nn

from gradshard.pipeline.loading import compute_signs
from gradshard.storage.formats.manifest import read_manifest
from tests.helpers.projects import call


@pytest.fixture
def store(copied_project, monkeypatch, capsys):
    """Run `gradshard store ...` in a finished project; gives the exit code and standard output."""
    monkeypatch.chdir(copied_project.path)

    def run(*arguments):
        capsys.readouterr()
        code = call(monkeypatch, "store", *arguments)
        return code, capsys.readouterr().out

    return run


ORIGIN = ("--model", "models/static/A.safetensors", "--dataset", "data/npz.zarr")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_info_fits_one_screen_and_names_what_the_store_is(store, copied_project):
    code, text = store("info", "signs/A.zarr")
    assert code == 0
    assert len(text.splitlines()) <= 24
    manifest = read_manifest(copied_project.path / "signs/A.zarr")
    for fact in (
        *("exact, label predicted, eval mode", "600 of shape (1, 28, 28)", "bits per pixel", "clip(x + epsilon * sign"),
        *(manifest.digest, manifest.content, manifest.dataset.digest, manifest.model.digest, "torch 2."),
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("asked", "attack"),
    [
        ({"attack": "mifgsm", "epsilon": 8 / 255, "steps": 3}, "mifgsm, epsilon 8/255, 3 steps, label predicted"),
        (
            {"attack": "rand_fgsm", "epsilon": 0.3, "alpha": 2 / 255, "label": "true"},
            "rand_fgsm, epsilon 0.3, alpha 2/255, label true",
        ),
    ],
)
def test_info_tells_an_attack_as_papers_write_it_and_how_its_signs_are_used(
    digits, tmp_path, monkeypatch, capsys, asked, attack
):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    compute_signs(model, tuple(part[:20] for part in digits["train"]), "signs/mine.zarr", **asked)
    assert call(monkeypatch, "store", "info", "signs/mine.zarr") == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert told["attack"] == attack
    assert told["to use"] == "clip(x + epsilon * sign, 0, 1)"
    assert told["weights file"] == "not told"
    assert len(lines) <= 24


def test_info_as_json_is_the_manifest_without_its_files(store):
    code, text = store("info", "--json", "signs/A.zarr")
    told = json.loads(text)
    assert code == 0
    assert told["dataset"]["rows"] == 600
    assert told["direction"]["gradient"] == "exact"
    assert 0.5 < told["bits_per_pixel"] < 2
    assert "files" not in told


def test_precompute_says_the_size_and_the_bits_that_info_says(gradshard, copied_project, store):
    shutil.rmtree(copied_project.path / "signs/A.zarr")
    _, said = gradshard(copied_project, "precompute", "A")
    size = re.search(r"^size +(.*)$", store("info", "signs/A.zarr")[1], flags=re.MULTILINE)[1]
    assert f"signs/A.zarr: 600 rows, {size}, " in said


def test_verify_repair_verify(store, copied_project):
    folder = copied_project.path / "signs/A.zarr"
    whole = files(folder)
    assert store("verify", "signs/A.zarr")[0] == 0
    (folder / "signs/c/2/0/0").write_bytes(b"")
    (folder / "labels/c/7").unlink()
    (folder / "README.md").write_text("other")
    code, text = store("verify", "signs/A.zarr")
    assert code == 1
    lines = text.splitlines()
    assert any(line.startswith("shard 2, rows ") and "signs/c/2/0/0" in line for line in lines)
    assert any(line.startswith("shard 7, rows ") and "labels/c/7: is missing" in line for line in lines)
    assert json.loads(store("verify", "--json", "signs/A.zarr")[1])["bad_shards"] == [2, 7]
    code, text = store("repair", "signs/A.zarr", *ORIGIN, "--json")
    assert code == 0
    assert json.loads(text)["computed_shards"] == [2, 7]
    assert store("verify", "signs/A.zarr")[0] == 0
    assert files(folder) == whole


def litter(folder):
    for name in (".DS_Store", "signs/._c", "labels/.nfs0000000000000001"):
        (folder / name).write_bytes(b"litter")


def test_litter_is_named_and_passed_over_by_verify_export_and_push(store, copied_project, gradshard):
    whole = files(copied_project.path / "signs/A.zarr")
    litter(copied_project.path / "signs/A.zarr")
    unfinished = copied_project.path / "signs/A.zarr/.README.md.k1lled00.tmp"
    unfinished.write_bytes(b"#")
    others = "labels/.nfs0000000000000001, signs/._c: systems and killed processes leave such files"
    named = f"passed over .DS_Store, .README.md.k1lled00.tmp, {others}"
    code, text = store("verify", "signs/A.zarr")
    assert code == 0
    assert named in text
    assert "is intact: " in text
    for command in (("export", "signs/A.zarr", "A.zip"), ("push", "signs/A.zarr", "pushed/A.zarr")):
        code, said = gradshard(copied_project, "store", *command)
        assert code == 0
        assert f"signs/A.zarr: {named}" in said
    assert store("import", "A.zip", "imported/A.zarr")[0] == 0
    for folder in ("pushed", "imported"):
        assert files(copied_project.path / folder / "A.zarr") == whole


def test_a_store_is_pushed_to_a_folder_that_holds_nothing_but_litter(store, copied_project):
    target = copied_project.path / "pushed/A.zarr"
    target.mkdir(parents=True)
    (target / ".DS_Store").write_bytes(b"litter")
    assert store("push", "signs/A.zarr", "pushed/A.zarr")[0] == 0


def test_a_foreign_file_is_told_as_such_and_not_as_damage(store, copied_project):
    (copied_project.path / "signs/A.zarr/notes.txt").write_text("mine")
    code, text = store("verify", "signs/A.zarr")
    assert code == 1
    assert "damaged" not in text
    assert "notes.txt: is no file of the store: remove it" in text
    assert "is intact: " in text
    told = json.loads(store("verify", "signs/A.zarr", "--json")[1])
    assert (told["intact"], told["foreign"], told["litter"]) == (True, ["notes.txt"], [])


def test_a_foreign_file_whose_name_is_no_text_is_told_and_spoils_no_verdict(store, copied_project):
    (copied_project.path / os.fsdecode(b"signs/A.zarr/notes-\xff.txt")).write_text("mine")
    code, text = store("verify", "signs/A.zarr")
    assert code == 1
    assert "notes-\\udcff.txt: is no file of the store: remove it" in text
    assert "is intact: " in text
    code, text = store("verify", "signs/A.zarr", "--json")
    assert (code, json.loads(text)["intact"]) == (1, True)


def test_a_card_whose_line_ends_git_changed_is_told_as_that_and_written_anew_without_a_model(store, copied_project):
    card = copied_project.path / "signs/A.zarr/README.md"
    whole = card.read_bytes()
    card.write_bytes(whole.replace(b"\n", b"\r\n"))
    code, text = store("verify", "signs/A.zarr")
    assert code == 1
    assert "README.md: only its line ends were changed" in text
    assert "signs/A.zarr differs in README.md alone, its 19 shards are whole" in text
    assert "without a model" in text
    assert store("repair", "signs/A.zarr")[0] == 0
    assert card.read_bytes() == whole


def test_what_is_damaged_besides_shards_is_counted_apart(store, copied_project):
    (copied_project.path / "signs/A.zarr/labels/c/7").unlink()
    (copied_project.path / "signs/A.zarr/README.md").write_text("other")
    assert "is damaged: 1 of 19 shards and README.md; " in store("verify", "signs/A.zarr")[1]


def test_shards_are_not_computed_again_without_a_model(copied_project, gradshard):
    (copied_project.path / "signs/A.zarr/labels/c/7").unlink()
    code, said = gradshard(copied_project, "store", "repair", "signs/A.zarr")
    assert code == 2
    assert "1 of 19 shards must be computed again: give --model and --dataset" in said


@pytest.mark.parametrize("command", [("export", "A.zip"), ("push", "pushed/A.zarr")], ids=lambda command: command[0])
def test_a_store_that_lacks_a_shard_is_not_sent_and_the_shard_is_named(copied_project, gradshard, command):
    (copied_project.path / "signs/A.zarr/signs/c/7/0/0").unlink()
    code, said = gradshard(copied_project, "store", command[0], "signs/A.zarr", command[1])
    assert code == 2
    assert said.splitlines()[-1] == (
        "gradshard: signs/A.zarr lacks signs/c/7/0/0, of shard 7: mend it by `gradshard store repair signs/A.zarr`, or "
        "fetch it again by `gradshard store pull`"
    )
    assert not (copied_project.path / "A.zip").exists()


def test_repair_of_an_intact_store_needs_neither_model_nor_dataset(store):
    assert store("repair", "signs/A.zarr", "--model", "none", "--dataset", "none")[1].endswith("nothing to mend\n")


def test_repair_with_another_model_is_refused_and_changes_nothing(store, copied_project):
    folder = copied_project.path / "signs/A.zarr"
    (folder / "labels/c/7").unlink()
    damaged = files(folder)
    assert store("repair", "signs/A.zarr", "--model", "models/static/C.safetensors", *ORIGIN[2:])[0] == 2
    assert files(folder) == damaged


def test_diff_tells_the_agreement_by_class_and_exits_by_it(store, copied_project):
    shutil.copytree(copied_project.path / "signs/A.zarr", copied_project.path / "copy.zarr")
    code, text = store("diff", "signs/A.zarr", "copy.zarr", "--json")
    assert (code, json.loads(text)["same_content"]) == (0, True)
    code, text = store("diff", "signs/A.zarr", "signs/C.zarr", "--json")
    told = json.loads(text)
    assert code == 1
    assert 0.3 < told["agreement"] < 0.9
    assert sum(entry["rows"] for entry in told["classes"].values()) == 600
    weighted = sum(entry["rows"] * entry["agreement"] for entry in told["classes"].values())
    assert weighted == pytest.approx(600 * told["agreement"])


def test_export_import_push_and_pull_keep_every_byte(store, copied_project):
    whole = files(copied_project.path / "signs/A.zarr")
    for arguments in (
        ("export", "signs/A.zarr", "A.zip"),
        ("import", "A.zip", "imported/A.zarr"),
        ("push", "imported/A.zarr", "pushed/A.zarr"),
        ("pull", "pushed/A.zarr", "pulled/A.zarr"),
    ):
        code, text = store(*arguments, "--json")
        assert code == 0
        assert json.loads(text)["digest"] == read_manifest(copied_project.path / "signs/A.zarr").digest
    for folder in ("imported", "pushed", "pulled"):
        assert files(copied_project.path / folder / "A.zarr") == whole


def test_views_tell_how_well_the_signs_hold(store):
    code, text = store("views", "signs/A.zarr", *ORIGIN, "--rows", "50", "--padding", "2", "--json")
    told = json.loads(text)["views"]
    assert code == 0
    assert told["the images themselves"] == {"agreement": 1.0, "gain": pytest.approx(1.0)}
    assert told["both"]["gain"] < told["crops"]["gain"] < 1
    code, text = store("views", "signs/A.zarr", *ORIGIN, "--rows", "50")
    assert "mirror images" in text


def test_a_padding_by_which_a_crop_may_show_nothing_is_refused(store, copied_project, gradshard):
    arguments = ("views", "signs/A.zarr", *ORIGIN, "--rows", "200", "--json", "--padding")
    code, err = gradshard(copied_project, "store", *arguments, "28")
    assert (code, err) == (
        2,
        "gradshard: --padding 28 is too much for images of 28x28 pixels, of which a crop may "
        "then show none: give 27 at most\n",
    )
    code, text = store(*arguments, "27")
    assert code == 0
    assert 0 < json.loads(text)["views"]["crops"]["agreement"] < 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "nothing.zarr"),
        ("verify", "nothing.zarr"),
        ("verify", "signs/A.zarr", "--digest", "0123456789ab"),
        ("audit", "nothing.zarr", *ORIGIN),
        ("repair", "nothing.zarr", *ORIGIN),
        ("diff", "signs/A.zarr", "nothing.zarr"),
        ("export", "nothing.zarr", "x.zip"),
        ("import", "nothing.zip", "x.zarr"),
        ("push", "nothing.zarr", "x.zarr"),
        ("pull", "nothing.zarr", "x.zarr"),
        ("info", "gopher://example.org/A.zarr"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_sentence_with_exit_code_2(copied_project, gradshard, arguments):
    before = files(copied_project.path)
    code, said = gradshard(copied_project, "store", *arguments)
    assert code == 2
    assert said.strip().splitlines()[-1].startswith(("gradshard: ", "Error: "))
    assert "Traceback" not in said
    assert files(copied_project.path) == before


def test_too_little_memory_is_told_in_a_sentence(copied_project, gradshard, monkeypatch):
    def manifest_at(place):
        return np.empty((1 << 48, 1 << 10))

    monkeypatch.setattr("gradshard.stages.store.info.manifest_at", manifest_at)
    code, said = gradshard(copied_project, "store", "info", "signs/A.zarr")
    assert code == 2
    assert said.startswith("gradshard: not enough memory (Unable to allocate")
    assert said.count("\n") == 1


def test_a_library_that_is_not_installed_is_told_with_its_extra(copied_project, gradshard, monkeypatch):
    def manifest_at(place):
        raise ModuleNotFoundError("No module named 's3fs'", name="s3fs")

    monkeypatch.setattr("gradshard.stages.store.info.manifest_at", manifest_at)
    code, said = gradshard(copied_project, "store", "info", "signs/A.zarr")
    assert (code, said) == (2, "gradshard: this command needs the package s3fs: pip install 'gradshard[s3]'\n")


def test_the_home_folder_is_understood_in_every_path_and_place(store, copied_project, monkeypatch):
    monkeypatch.setenv("HOME", str(copied_project.path))
    origin = ("--model=~/models/static/A.safetensors", "--dataset=~/data/npz.zarr")
    for arguments in (
        ("info", "~/signs/A.zarr"),
        ("verify", "~/signs/A.zarr"),
        ("audit", "~/signs/A.zarr", *origin, "--rows", "5", "--cache=~/cache"),
        ("views", "~/signs/A.zarr", *origin, "--rows", "5"),
        ("repair", "~/signs/A.zarr", *origin),
        ("diff", "~/signs/A.zarr", "~/signs/A.zarr"),
        ("export", "~/signs/A.zarr", "~/new/A.zip"),
        ("import", "~/new/A.zip", "~/new/imported.zarr"),
        ("push", "~/new/imported.zarr", "~/new/pushed.zarr"),
        ("pull", "~/new/pushed.zarr", "~/new/pulled.zarr"),
    ):
        assert store(*arguments)[0] == 0, arguments
    there = {path.name for path in (copied_project.path / "new").iterdir() if not path.name.startswith(".")}
    assert there == {"A.zip", "imported.zarr", "pushed.zarr", "pulled.zarr", "stores.json"}
    assert not (copied_project.path / "~").exists()


def test_the_home_folder_is_understood_in_parameters_and_in_the_places_of_sources(
    copied_project, gradshard, monkeypatch
):
    path = copied_project.path
    monkeypatch.setenv("HOME", str(path))
    (path / "raw").mkdir()
    (path / "digits.npz").rename(path / "raw/digits.npz")
    copied_project.edit(lambda params: params["dataset"].update(path="~/raw/digits.npz"))
    shutil.rmtree(path / "data")
    (path / "params.yaml").rename(path / "raw/params.yaml")
    assert gradshard(copied_project, "prepare", "--params=~/raw/params.yaml")[0] == 0
    (path / "signs/A.zarr").rename(path / "raw/A.zarr")
    arguments = ("train-robust", "A_adv-ens", "--params=~/raw/params.yaml", "--store", "A=~/raw/A.zarr")
    assert gradshard(copied_project, *arguments)[0] == 0
    assert not (path / "~").exists()
