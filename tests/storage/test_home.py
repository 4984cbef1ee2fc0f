"""A tilde at the start of a path is the home folder, and nothing else is touched."""

import pytest

from gradshard.storage.home import at_home, path_of


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/S.zarr", "/home/me/S.zarr"),
        ("~", "/home/me"),
        ("S~.zarr", "S~.zarr"),
        ("./~/S.zarr", "./~/S.zarr"),
        ("~nobody-of-that-name/S.zarr", "~nobody-of-that-name/S.zarr"),
        ("https://host/~me/S.zarr", "https://host/~me/S.zarr"),
    ],
)
def test_a_tilde_at_the_start_is_the_home_folder(monkeypatch, written, meant):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(written) == meant
    assert str(path_of("~/data")) == "/home/me/data"
