"""The documentation as a site: built without a warning, with every page and every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradshard

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # Material tells of a future without MkDocs, which is no fault of a page.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site):
    home = (site / "index.html").read_text()
    assert "Precompute adversarial gradients once" in home
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.stem / "index.html").exists()
        assert f'href="{page.stem}/" class="md-nav__link"' in home


def test_the_reference_has_every_public_name(site):
    page = (site / "reference/index.html").read_text()
    found = {name.rpartition(".")[2] for name in re.findall(r'id="(gradshard[\w.]+)"', page)}
    assert set(gradshard.__all__) - {"__version__"} <= found
    assert "Killed and called again, it computes only the shards that are missing" in page


def test_no_link_leads_out_of_the_site_to_a_file(site):
    for page in site.rglob("*.html"):
        for target in re.findall(r'href="([^"#?]+)', page.read_text()):
            local = ":" not in target and not target.startswith("/")
            assert not local or (page.parent / target).resolve().exists(), f"{page}: {target}"
