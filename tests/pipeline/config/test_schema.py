"""params.yaml: what is wrong is told in one sentence that names the key."""

import copy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradshard.pipeline.config.profiles import profiles
from gradshard.pipeline.config.schema import check_params, read_params
from gradshard.storage.errors import GradshardError

ROOT = Path(__file__).parents[3]
STATIC = {"architecture": "A", "epochs": 1}


@pytest.fixture
def content():
    return YAML(typ="safe").load(profiles()["mnist5k"])


def put(content, key, value):
    *path, last = key.split("/")
    for part in path:
        content = content[part]
    content[last] = value


PGD = {"model": "A", "gradient": "exact", "label": "predicted", "attack": "pgd", "eps": 0.3, "steps": 20}
RAND = {"model": "A", "gradient": "exact", "label": "predicted", "attack": "rand_fgsm", "eps": 0.3, "alpha": 0.05}
DI = {"model": "A", "label": "predicted", "attack": "torchattacks:DIFGSM", "eps": 0.3}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("trainin", {}, "unknown key trainin (did you mean training?)"),
        ("training/bach", 3, "unknown key training.bach (did you mean batch?)"),
        ("static/A/epoch", 3, "unknown key static.A.epoch (did you mean epochs?)"),
        ("training/batch", "many", "training.batch should be a valid integer, but is 'many'"),
        ("training/batch", 0, "training.batch should be greater than 0, but is 0"),
        ("training/batch", True, "training.batch should be a valid integer, but is True"),
        ("training/precision", "fp8", "training.precision should be 'auto', 'fp32', 'bf16' or 'tf32', but is 'fp8'"),
        ("attack/eps", 0, "attack.eps must be above 0 and at most 1 (pixels lie in [0, 1]), but is 0.0"),
        (
            "adversarial/schedule",
            "randm",
            "schedule should be 'random', 'rotate', 'all', 'top_k' or 'loss_weighted', but",
        ),
        ("dataset", {"name": "minst"}, "dataset.name is minst, which is no dataset (did you mean mnist?)"),
        ("dataset", {"name": "mnist", "call": "a:b"}, "dataset.name is mnist, another dataset's"),
        ("dataset", {"name": "mine", "call": "a.b"}, "dataset.call must have the form package.module:function"),
        ("dataset", {"name": "mine", "call": "a:b", "path": "x"}, "dataset.path is not for a dataset that call makes"),
        ("dataset", {"name": "npz", "arguments": {"a": 1}}, "dataset.arguments is for a dataset of your own"),
        ("analysis/tables", ["mine"], "analysis.tables.0 must have the form package.module:function, but is 'mine'"),
        (
            "attack/custom",
            {"di": {"call": "difgsm"}},
            "attack.custom.di.call must have the form package.module:function, but is 'difgsm'",
        ),
        ("attack/custom", {"pgd": {"call": "a:b"}}, "attack.custom.pgd has the name of another attack"),
        (
            "attack/custom",
            {"a.b": {"call": "a:b"}},
            "attack.custom.a.b must be a name of letters, digits, - and _, but is 'a.b'",
        ),
        (
            "attack/custom",
            {"di": {"call": "a:b", "argument": {}}},
            "attack.custom.di.argument (did you mean arguments?)",
        ),
        (
            "attack/custom",
            {"di": {"call": "a:b", "arguments": {"eps": 0.1}}},
            "attack.custom.di.arguments.eps is given by attack.eps",
        ),
        ("attack/eps", -0.1, "attack.eps must be above 0"),
        ("attack/eps", 8, "attack.eps must be above 0 and at most 1"),
        ("attack/eps", "16/0", "attack.eps should be a valid number, but is '16/0'"),
        ("attack/alpha", 0.3, "attack.alpha must be above 0 and below eps (0.3), but is 0.3"),
        ("attack/alpha", 0, "attack.alpha must be above 0"),
        ("robust/A_adv-ens/sources", ["A", "B"], "robust.A_adv-ens.sources names the holdout B"),
        (
            "robust/A_adv-ens/sources",
            ["A", "E"],
            "sources names E, which is not a sign store (there are A, C",
        ),
        ("robust/A_adv-ens/sources", ["A", "A"], "robust.A_adv-ens.sources names one model twice"),
        (
            "robust/ensemble",
            {"P": {"architecture": "A", "epochs": 1, "sources": ["A"]}},
            "robust.ensemble is a group of gradshard 0.1: write its models directly below robust",
        ),
        ("robust/self_only", {}, "robust.self_only is a group of gradshard 0.1"),
        ("training/optimizer", "lion", "training.optimizer should be 'adam', 'sgd' or 'rmsprop', but is 'lion'"),
        ("training/momentum", 0.9, "training.momentum is 0.9, which adam does not take: set it to 0.0"),
        ("training/rmsprop_epsilon", 0.1, "training.rmsprop_epsilon is 0.1, which adam does not take: set it to 1.0"),
        ("training/milestones", [4], "training.milestones is [4], which exponential does not take: set it to []"),
        ("training/learning_rate_schedule", "step", "training.milestones must be epochs in ascending order, but is []"),
        ("training/clip_norm", 0, "training.clip_norm should be greater than 0, but is 0"),
        (
            "static/A/training",
            {"optimizer": "sgd", "nesterov": True},
            "static.A.training.nesterov is for a momentum above 0: give one, or set it to false",
        ),
        (
            "robust/A_adv/training",
            {"learning_rate_schedule": "step", "milestones": [2, 4], "decay": 1.0, "decay_epochs": 1},
            "robust.A_adv.training.decay is 1.0, so no milestone changes the learning rate: give a smaller factor",
        ),
        ("training/compile", True, "training.compile should be 'auto', 'on' or 'off', but is True"),
        ("training/decay", 1.5, "training.decay should be less than or equal to 1, but is 1.5"),
        ("training/augment", {"flop": True}, "unknown key training.augment.flop (did you mean flip?)"),
        ("adversarial/objective", "third", "adversarial.objective should be 'both' or 'half', but is 'third'"),
        ("adversarial/adversarial_weight", 0, "adversarial.adversarial_weight should be greater than 0, but is 0"),
        ("signs/A/precision", "tf32", "signs.A.precision should be 'fp32' or 'bf16', but is 'tf32'"),
        ("signs/A", {"model": "A", "label": "true"}, "signs.A.gradient is missing: exact or cross_entropy"),
        ("signs/A/eps", 0.1, "signs.A.eps is for a store of an attack: name one in attack"),
        ("signs/A/label", "random", "signs.A.label is random, a target for an attack"),
        ("signs/A/attack", "mi_fgsm", "signs.A.attack is mi_fgsm, which is no attack (did you mean mifgsm?)"),
        ("signs/A/attack", "pgd", "signs.A.eps is missing, which pgd takes"),
        ("signs/A", {**PGD, "alpha": 0.1}, "signs.A.alpha is not for pgd (it makes no random step): remove it"),
        ("signs/A", {**PGD, "attack": "cw", "label": "random"}, "signs.A.label is random, a target, which only fgsm, "),
        ("signs/A", {**PGD, "copies": 16}, "signs.A.copies should be less than or equal to 15"),
        (
            "signs/A",
            {"model": "A", "label": "true", "attack": "ifgsm", "eps": 0.3, "steps": 2, "copies": 2},
            "signs.A.copies is not for ifgsm, which draws nothing: all would be equal",
        ),
        ("signs/A", {**PGD, "arguments": {"a": 1}}, "signs.A.arguments is for an attack from elsewhere"),
        ("signs/A", {**RAND, "alpha": 0.3}, "signs.A.alpha must be below eps (0.3), but is 0.3"),
        (
            "signs/A",
            {**DI, "gradient": "exact"},
            "signs.A.gradient is not for torchattacks:DIFGSM, whose loss",
        ),
        ("signs/A", {**DI, "arguments": {"eps": 1}}, "signs.A.arguments.eps is given by eps: remove it"),
        ("signs/A", {**DI, "steps": 3}, 'its arguments: give arguments: {"steps": 3}'),
        ("signs/A", {**DI, "alpha": 0.1}, 'its arguments: give arguments: {"alpha": 0.1}'),
        ("evaluation/label", "predicted", "evaluation.label should be 'true' or 'least_likely', but is 'predicted'"),
        ("evaluation/top", [], "evaluation.top "),
        ("evaluation/top", [5], "evaluation.top must hold 1, by which masked gradients are judged"),
        ("evaluation/top", [1, 1], "evaluation.top must list each once"),
        ("evaluation/gradients", ["exact", "exact"], "evaluation.gradients must list each once"),
        ("static/own", STATIC, "static.own is a word that results use for something else"),
        ("signs/A_adv", {"model": "A", "gradient": "exact", "label": "true"}, "signs.A_adv has the name of a robust"),
        ("foo.bar", 1, "unknown key foo.bar (there are profile"),
        ("robust/A_adv/training", {"foo.bar": 1}, "unknown key robust.A_adv.training.foo.bar"),
        ("robust/A_adv/snapshots", [11], "snapshots must not come after the last epoch, 6, but has 11"),
        ("robust/A", {"architecture": "A", "epochs": 1}, "robust.A is the name of another model"),
        ("signs/D/model", "Z", "signs.D.model names Z, which is not a static model"),
        ("signs/D/model", "B", "robust.A_adv-ens.sources names the holdout B"),
        ("robust/A_adv-ens/attack", "rand_fgsm", "attack is rand_fgsm, which no stored sign serves"),
        (
            "robust/A_adv-ens/run_of",
            "A_adv",
            "robust.A_adv-ens.run_of is gone: remove this model, and list its seed in seeds",
        ),
        (
            "robust/A_adv-ens/seed",
            7,
            "robust.A_adv-ens.seed is gone: remove it and write `seeds: [7]` and",
        ),
        ("seeds", [], "seeds must list at least one seed, and each once, but is []"),
        ("seeds", [10, 10], "seeds must list at least one seed, and each once, but is [10, 10]"),
        ("seeds", [-1], "seeds.0 should be greater than or equal to 0"),
        ("seeds", 10, "seeds should be a valid list"),
        ("static/A_adv-10", STATIC, "static.A_adv-10 is what files call a robust model of one seed: rename it"),
        ("stand_ins", {11: {"A": "A-2"}}, "stand_ins.11 is of a seed that seeds does not list (10)"),
        ("stand_ins", {10: {"Z": "A-2"}}, "stand_ins.10.Z is of no static model and no sign store"),
        ("stand_ins", {10: {"B": "B-2"}}, "stand_ins.10.B names B-2, which is not a static model: add it to static"),
        ("stand_ins", {10: {"B": "D"}}, "stand_ins.10.B names D, which is of another architecture than B"),
        ("evaluation/holdout", "Z", "evaluation.holdout names Z, which is not a static model"),
        ("evaluation/targets", ["A_adv@9"], "names A_adv@9, which is not a model (did you mean A_adv?)"),
        (
            "evaluation/attacks",
            {"deepfool": ["A"]},
            "evaluation.attacks names deepfool, which is not an attack (there are fgsm, ifgsm",
        ),
        ("evaluation/sweep", [0.1], "evaluation.sweep must hold 0"),
        ("evaluation/diagnosed", ["Z"], "evaluation.diagnosed names Z, which is not a model"),
        ("evaluation/attacks", {"fgsm": ["Z"]}, "evaluation.attacks.fgsm names Z, which is not a model"),
        ("streaming/memory", "lots", "streaming.memory must be a size such as 4 GiB, but is 'lots'"),
        ("static", {"../A": {"architecture": "A", "epochs": 1}}, "static.../A"),
        ("static/resnet-v1.5", STATIC, "static.resnet-v1.5 has a dot in its name, which DVC takes for a level of the"),
        ("static/x.y", STATIC, "write x_y"),
        ("signs/A.2", {"model": "A", "gradient": "exact", "label": "true"}, "signs.A.2 has a dot in its name"),
        ("robust/v1.5", STATIC, "robust.v1.5 has a dot in its name"),
        *(
            (f"static/{name}", STATIC, f"static.{name} is a name that YAML reads as a number, a date or another word")
            for name in ("1", "1e3", "0x1F", "1_000", "null", "Null", "on", "NO", "true", "2023-05-09")
        ),
        ("static/con", STATIC, "static.con is a name that Windows keeps for a device"),
        ("signs/self", {"model": "A", "gradient": "exact", "label": "true"}, "signs.self is a word that results use"),
        ("static/" + "x" * 101, STATIC, "is a name of 101 characters, too long for a file"),
        ("static/a", STATIC, "static has A and a, which are one file on some disks: rename one"),
        ("signs/d", {"model": "D", "gradient": "exact", "label": "true"}, "signs has D and d, which are one file"),
        ("static/bad name", STATIC, "static.bad name must be of letters, digits, - and _, and begin with a letter or"),
        ("evaluation/gradients", [], "evaluation.gradients must have at least 1 entries, but is []"),
        ("evaluation/holdout", ["B"], "evaluation.holdout must be one name, not a list or a section"),
        ("dataset", "mnist", "dataset must be a section of keys and values, but is 'mnist'"),
        ("blackbox/forest/x", 1, "unknown key blackbox.forest.x (there are trees, sources, "),
        (
            "signs/A",
            {**DI, "arguments": {"x": [1]}},
            "signs.A.arguments.x should be a valid boolean or a valid integer or a valid number or a valid string",
        ),
        ("profile", {str(number): 0 for number in range(2000)}, "'9': 0,…"),
        ("static/A/weights_key", "ema", "static.A.weights_key is for a checkpoint, not for random weights"),
        ("static/A/output", "softmax", "static.A.output should be 'logits' or 'probabilities', but is 'softmax'"),
        ("signs/A/zero_rows", 2, "signs.A.zero_rows should be less than or equal to 1, but is 2"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(content, key, value, sentence):
    put(content, key, value)
    with pytest.raises(GradshardError) as caught:
        check_params(content, where="params.yaml")
    assert str(caught.value).startswith("params.yaml: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["1", "1.5", "null", "2023-05-09", "true", "0x1F"])
def test_a_name_without_quotes_that_is_no_text_is_told(content, key):
    content["static"][YAML(typ="safe").load(key)] = STATIC
    with pytest.raises(GradshardError, match=r"static\..* is a name that YAML reads as a number"):
        check_params(content, where="params.yaml")


@pytest.mark.parametrize("name", ["A", "resnet-v1_5", "3x", "run-2023", "y2", "one"])
def test_names_that_nobody_bends_are_taken(content, name):
    put(content, f"static/{name}", STATIC)
    assert name in check_params(content, where="params.yaml").static


def test_what_is_not_asked_for_leaves_no_trace_in_results(content):
    dumped = check_params(content, where="params.yaml").model_dump(by_alias=True)
    assert dumped["static"]["A"].keys() == {"architecture", "epochs", "seed", "weights"}
    assert dumped["signs"]["A"].keys() == {"model", "gradient", "label", "precision", "licence"}


@pytest.mark.parametrize("section", ["training", "attack", "evaluation"])
def test_a_missing_section_is_named(content, section):
    del content[section]
    with pytest.raises(GradshardError, match=rf"params\.yaml: key {section} is missing"):
        check_params(content, where="params.yaml")


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_refused(content):
    with pytest.raises(GradshardError, match=r"params\.yaml: the file must be a section of keys and values"):
        check_params(content, where="params.yaml")


def test_epsilon_may_be_a_fraction(content):
    changed = copy.deepcopy(content)
    put(changed, "attack/eps", "16/256")
    put(changed, "attack/alpha", "8 / 256")
    attack = check_params(changed, where="params.yaml").attack
    assert (attack.epsilon, attack.alpha) == (0.0625, 0.03125)


def test_the_label_true_needs_no_quotes(content):
    changed = copy.deepcopy(content)
    for key in ("signs/A/label", "adversarial/label", "evaluation/label"):
        put(changed, key, True)
    params = check_params(changed, where="params.yaml")
    assert [params.signs["A"].label, params.adversarial.label, params.evaluation.label] == ["true"] * 3


@pytest.mark.parametrize("value", ["2024-13-45", "2020-02-30", "!!int x", "!!float x", "!!bool x", "!!timestamp x"])
def test_a_value_that_is_not_what_it_looks_like_is_told(tmp_path, value):
    (tmp_path / "params.yaml").write_text(f"profile: {value}\n")
    with pytest.raises(GradshardError, match=r"params.yaml is not YAML: .*"):
        read_params(tmp_path / "params.yaml")


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(GradshardError, match="no parameter file"):
        read_params(tmp_path / "params.yaml")
    for text in ("a: [1\nb: }", "a: " + "[" * 3000 + "]" * 3000):
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(GradshardError, match="is not YAML"):
            read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", sorted(profiles()))
def test_every_profile_fits_the_schema_and_is_named_after_its_file(name):
    params = check_params(YAML(typ="safe").load(profiles()[name]), where=name)
    assert params.profile == name


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("params.yaml")), ids=lambda path: path.parent.name)
def test_the_parameters_of_every_published_result_fit_the_schema(path):
    read_params(path)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_a_robust_model_takes_any_number_of_sources(content, count):
    content["signs"] = {f"S{number}": {"model": "A", "gradient": "exact", "label": "predicted"} for number in range(5)}
    put(content, "robust/A_adv-ens/sources", list(content["signs"])[:count])
    assert len(check_params(content, where="params.yaml").robust["A_adv-ens"].sources) == count


def test_an_attack_from_elsewhere_is_evaluated_by_its_name(content):
    put(content, "attack/custom", {"di": {"call": "torchattacks:DIFGSM", "arguments": {"alpha": "2/255", "steps": 5}}})
    put(content, "evaluation/attacks/di", ["B"])
    params = check_params(content, where="params.yaml")
    assert params.attack.custom["di"].arguments == {"alpha": 2 / 255, "steps": 5}
    assert params.evaluation.attacks["di"] == ["B"]


def test_parameters_without_attacks_from_elsewhere_are_recorded_as_they_always_were(content):
    assert "custom" not in check_params(content, where="params.yaml").model_dump(by_alias=True)["attack"]


def test_the_mnist_profile_is_the_papers_experiment():
    params = check_params(YAML(typ="safe").load(profiles()["mnist"]), where="mnist")
    assert {model.epochs for model in params.static.values()} == {6}
    assert {(model.epochs, *model.snapshots) for model in params.robust.values()} == {(12, 6)}
    assert (params.training.batch, params.training.learning_rate, params.adversarial.learning_rate) == (
        64,
        0.001,
        0.001,
    )
    assert (params.attack.epsilon, params.attack.alpha, params.attack.steps) == (0.3, 0.05, 10)
    assert params.robust["A_adv-ens"].sources == ["A", "C", "D"]
    assert params.evaluation.holdout == "B"


@pytest.fixture
def stood_in(content):
    """Parameters in which A-2 stands for A, model and store, with seed 11."""
    content["seeds"] = [10, 11]
    content["static"]["A-2"] = content["static"]["A"] | {"seed": 5}
    content["signs"]["A-2"] = content["signs"]["A"] | {"model": "A-2"}
    content["stand_ins"] = {11: {"A": "A-2"}}
    return content


def test_every_robust_model_is_a_run_of_every_seed_and_others_may_stand_for_static_models(stood_in):
    params = check_params(stood_in, where="params.yaml")
    assert list(params.runs) == ["A_adv-10", "A_adv-11", "A_adv-ens-10", "A_adv-ens-11"]
    assert [params.in_run(name, 11) for name in ("A", "C", "A_adv", "A_adv@6")] == [
        "A-2",
        "C",
        "A_adv-11",
        "A_adv-11@6",
    ]
    assert [params.in_run(name, 10) for name in ("A", "A_adv")] == ["A", "A_adv-10"]
    assert params.steady == ["B", "C", "D", "A-2"]


def test_after_the_first_seed_only_what_changes_with_it_is_measured_and_asked(stood_in):
    stood_in["analysis"].update(models=["A", "B", "A_adv", "A_adv-ens"])
    stood_in["blackbox"].update(targets=["B", "A_adv"])
    stood_in["blackbox"]["forest"]["sources"] = ["C", "A"]
    params = check_params(stood_in, where="params.yaml")
    assert params.analysis_of(10) == params.analysis
    assert params.blackbox_of(10) == params.blackbox
    assert params.analysis_of(11).models == ["A", "A_adv", "A_adv-ens"]
    assert params.analysis_of(11).plane == params.analysis.plane
    assert params.blackbox_of(11).targets == ["A_adv"]
    assert params.blackbox_of(11).forest.sources == ["A"]


def test_a_forest_whose_sources_no_seed_changes_is_grown_once(stood_in):
    stood_in["stand_ins"] = {}
    params = check_params(stood_in, where="params.yaml")
    assert params.blackbox_of(10).forest is not None
    assert params.blackbox_of(11).forest is None


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("signs/A-2", None, "stand_ins.11.A names A-2, which is not a sign store: add it to signs"),
        ("signs/A-2/label", "true", "stand_ins.11.A names A-2, whose signs are made in another way than those of A"),
        ("signs/A-2/model", "C", "stand_ins.11 lets A-2 attack but trains on A-2, signs of C: let a store of A-2"),
        ("evaluation/targets", ["A-2"], "stand_ins.11.A names A-2, which evaluation.targets names too"),
        ("stand_ins", {11: {"C": "A-2"}}, "stand_ins.11.C names A-2, which is of another architecture than C"),
        ("stand_ins", {11: {"A": "A-2", "D": "A-2"}}, "stand_ins.11"),
    ],
)
def test_what_stands_for_another_must_be_like_it_and_be_used_nowhere_else(stood_in, key, value, sentence):
    put(stood_in, key, value)
    if value is None:
        del stood_in["signs"]["A-2"]
    with pytest.raises(GradshardError) as caught:
        check_params(stood_in, where="params.yaml")
    assert sentence in str(caught.value)


def test_a_store_of_the_model_that_attacks_must_stand_for_the_one_trained_on(stood_in):
    stood_in["signs"]["A_true"] = stood_in["signs"]["A"] | {"label": "true"}
    stood_in["robust"]["A_adv"]["sources"] = ["A_true"]
    with pytest.raises(GradshardError, match="lets A-2 attack but trains on A_true, signs of A: let a store of A-2"):
        check_params(stood_in, where="params.yaml")


def test_a_store_of_an_attack_keeps_its_strength_and_one_of_gradients_has_no_more_keys_than_it_had(content):
    put(content, "signs/P", {**PGD, "eps": "8/256", "copies": 4})
    params = check_params(content, where="params.yaml")
    dumped = params.model_dump(by_alias=True)["signs"]
    assert (dumped["P"]["eps"], dumped["P"]["steps"], dumped["P"]["copies"]) == (0.03125, 20, 4)
    assert set(dumped["A"]) == {"model", "gradient", "label", "precision", "licence"}


@pytest.mark.parametrize("key", ["static/A/seed", "evaluation/seed", "blackbox/seed", "blackbox/substitute/seed"])
def test_a_seed_is_one_that_results_can_hold(content, key):
    put(content, key, 2**63 - 1)
    check_params(content, where="params.yaml")
    put(content, key, 2**63)
    with pytest.raises(GradshardError, match=f"{key.replace('/', '.')}"):
        check_params(content, where="params.yaml")
