"""The stage ``analyze``: interrupted and started again, it goes on with what is left."""

from gradshard.stages.jobs import gradient_analysis
from tests.helpers.projects import call, files


def test_an_interrupted_analysis_goes_on_and_ends_with_the_same_bytes(finished_project, tmp_path, monkeypatch):
    project = finished_project.copy_to(tmp_path / "project")
    before = files(project, "analysis")
    for path in (project.path / "analysis/10").iterdir():
        path.unlink()
    monkeypatch.chdir(project.path)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gradient_analysis, "fooling_directions", interrupted)
        assert call(patch, "analyze") != 0
    (kept,) = project.path.glob(".partial/analyze-10-*/norms-A-*.npz")
    assert not list((project.path / "analysis/10").iterdir())

    measure, measured = gradient_analysis.gradient_norms, []

    def counting(*arguments):
        measured.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(gradient_analysis, "gradient_norms", counting)
    assert call(monkeypatch, "analyze") == 0
    assert len(measured) == len(project.params()["analysis"]["models"]) - 1, f"{kept} was there"
    assert files(project, "analysis") == before
