"""Refusals of bad input by commands."""

OUTPUTS = ("data", "models", "signs", "training", "evaluation", "report")


def snapshot(project):
    return {p: p.read_bytes() for name in OUTPUTS for p in (project.path / name).rglob("*") if p.is_file()}


def refused(gradshard, project, *arguments, saying):
    """Check that the command fails with one sentence and changes no output."""
    before = snapshot(project)
    code, said = gradshard(project, *arguments)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("gradshard: ")
    assert saying in last
    assert "Traceback" not in said
    assert snapshot(project) == before
