"""The report as people see it: in a real browser, light, dark, printed, and without JavaScript."""

import os
import shutil
import subprocess

import matplotlib.image
import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,1600",
    "--virtual-time-budget=3000",
    "--enable-logging=stderr",
]
CLICK = "<script>document.querySelectorAll('table.sortable thead button')[1].click()</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BROWSER and not os.environ.get("GRADSHARD_REQUIRE_BROWSER"),
        reason="no chromium: the report is not looked at",
    ),
]


@pytest.fixture
def browse(finished_project, tmp_path):
    """Open the report, with something added before its end; gives what the browser printed and its log."""

    def run(*options, added=""):
        page = tmp_path / "index.html"
        text = (finished_project.path / "report/index.html").read_text()
        page.write_text(text.replace("</body>", f"{added}</body>"))
        command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


def test_the_page_draws_in_light_and_in_dark_and_prints(browse, tmp_path):
    means = {}
    for scheme, options in {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}.items():
        shot = tmp_path / f"{scheme}.png"
        browse(*options, f"--screenshot={shot}")
        pixels = matplotlib.image.imread(shot)[..., :3]
        assert pixels.std() > 0.02, "the page is not blank"
        means[scheme] = float(pixels[:20].mean())
    assert means["dark"] < 0.4
    assert means["light"] > 0.8
    printed = tmp_path / "report.pdf"
    browse(f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 20_000


def test_nothing_is_said_on_the_console_and_the_page_forbids_every_request(browse):
    assert "CONSOLE" not in browse("--dump-dom").stderr
    refused = browse("--dump-dom", added='<img src="https://example.org/a.png">').stderr
    assert "CONSOLE" in refused
    assert "Content Security Policy" in refused


def test_tables_are_there_without_javascript_and_sort_with_it(browse, finished_project):
    plain = (finished_project.path / "report/index.html").read_text()
    shown = browse("--dump-dom", added=CLICK).stdout
    assert shown.count("<td") == plain.count("<td") > 100
    assert plain.count("<button>") == 0
    assert shown.count("<button>") > 20
    assert shown.count('aria-sort="ascending"') == 1
    body = shown.split('aria-sort="ascending"')[1].split("<tbody>")[1].split("</tbody>")[0]
    column = [float(row.split("<td")[1].split(">")[1].split("<")[0]) for row in body.split("<tr>")[1:]]
    assert column == sorted(column)
    assert len(column) > 2
