"""Every library that may be left out is named with the extra that brings it."""

import tomllib
from pathlib import Path

from gradshard.storage.optional import EXTRAS, explained

ROOT = Path(__file__).parents[2]
# Where the package is called otherwise than what is imported.
_PACKAGES = {"OpenSSL": "pyopenssl", "art": "adversarial-robustness-toolbox", "model_signing": "model-signing"}


def test_each_library_is_of_the_extra_that_is_told():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        assert any(line.startswith(_PACKAGES.get(module, module)) for line in extras[extra]), module
    told = {_PACKAGES.get(module, module) for module in EXTRAS}
    for extra in sorted(extras.keys() - {"test"}):
        for line in extras[extra]:
            if line.startswith("gradshard["):  # other extras
                continue
            assert any(line.startswith(package) for package in told), line


def test_an_import_that_failed_names_who_needs_what_and_the_remedy():
    error = ModuleNotFoundError("No module named 'art.attacks'", name="art.attacks")
    assert str(explained(error, "this command")) == "this command needs the package art: pip install 'gradshard[peers]'"


def test_a_module_that_belongs_to_no_extra_is_not_explained_away():
    for name in ("gradshard.nothing", "artful", None):
        assert explained(ModuleNotFoundError("", name=name), "this command") is None
