"""`gradshard sources` and `gradshard digests`: what they leave in their folders."""

import json

import pytest

from tests.helpers.switches import SWITCHES


@pytest.fixture
def weights_alone(project):
    """A project without stores whose weights are there, whatever they are: both stages read only their digests."""
    project.edit(SWITCHES["stores"])
    names = [f"static/{name}" for name in "ABCD"]
    names += [f"robust/{name}-10" for name in ("A_adv", "A_adv-ens")]
    names += [f"snapshots/{name}-10/{name}-10@1" for name in ("A_adv", "A_adv-ens")]
    for name in names:
        file = project.path / "models" / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return project


@pytest.mark.parametrize(("stage", "outdated"), [("sources", "A_adv-9.json"), ("digests", "evaluate-9.json")])
def test_files_of_the_stage_that_are_outdated_go_and_those_of_others_stay(weights_alone, gradshard, stage, outdated):
    assert gradshard(weights_alone, stage)[0] == 0
    folder = weights_alone.path / stage
    current = {path.name for path in folder.iterdir()}
    gone, foreign = (
        (outdated, f".{outdated}.abcd.tmp"),
        ("notes.md", ".hidden.json", "kept/old.json", "kept/.x.json.tmp", "my-citations.json"),
    )
    for name in (*gone, *foreign):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps({"A": name if name in foreign else "0" * 64}))
    assert gradshard(weights_alone, stage)[0] == 0
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {*current, *foreign}
