"""Who vouches for a store: signatures by keys and by certificates, and everything else refused with exit code 1."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradshard.storage.formats.manifest import read_manifest
from gradshard.storage.formats.store_paths import MANIFEST, SIGNATURE
from tests.helpers import signers
from tests.helpers.broken_servers import broken_http
from tests.helpers.known_stores import reseal
from tests.helpers.projects import call
from tests.helpers.transfers import contents


@pytest.fixture
def store(small_store, tmp_path, monkeypatch) -> Path:
    """A published store, beside which the test works."""
    monkeypatch.chdir(tmp_path)
    return Path(small_store.where)


@pytest.fixture
def alice(tmp_path) -> signers.Signer:
    return signers.key_pair(tmp_path, "alice")


@pytest.fixture
def says(monkeypatch, capsys):
    """Run `gradshard store ...`; gives the exit code, standard output and standard error without its progress."""

    def run(*arguments):
        capsys.readouterr()
        code = call(monkeypatch, "store", *map(str, arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def signed(store, alice, says) -> Path:
    assert says("sign", store, "--key", alice.private)[0] == 0
    return store


def test_a_signed_store_is_vouched_for_by_its_signer_and_its_digest_is_as_before(store, alice, says):
    before = contents(store)
    code, out, _ = says("sign", store, "--key", alice.private, "--json")
    told = json.loads(out)
    assert (code, told["digest"]) == (0, read_manifest(store).digest)
    after = contents(store)
    del after[SIGNATURE]
    assert after == before
    assert says("verify", store)[0] == 0
    code, out, _ = says("verify", store, "--signer", alice.public, "--json")
    assert (code, json.loads(out)["signer"], json.loads(out)["signer_checked"]) == (0, told["signer"], True)
    assert f"{told['signer']}, unchecked" in says("info", store)[1]


def refused(answer):
    """A command found something: exit code 1 and one sentence."""
    code, _, err = answer
    last = err.strip().splitlines()[-1]
    assert (code, last.startswith("gradshard: "), "Traceback" in err) == (1, True, False), err
    return last


def test_another_key_or_no_signature_is_refused(store, signed, alice, says, tmp_path):
    bob = signers.key_pair(tmp_path, "bob")
    assert "and not by key" in refused(says("verify", store, "--signer", bob.public))
    (store / SIGNATURE).unlink()
    assert "is not signed" in refused(says("verify", store, "--signer", alice.public))
    assert says("verify", store)[0] == 0


@pytest.mark.parametrize("name", ["README.md", "signs/c/1/0/0", "labels/c/0", "zarr.json", MANIFEST])
def test_one_changed_byte_is_refused_by_verify_and_by_pull(signed, alice, says, name):
    content = bytearray((signed / name).read_bytes())
    content[-2] ^= 1
    (signed / name).write_bytes(content)
    assert says("verify", signed, "--signer", alice.public)[0] == 1
    refused(says("pull", signed, "pulled.zarr", "--signer", alice.public))
    assert not Path("pulled.zarr").exists()


def test_a_store_whose_manifest_was_made_right_again_is_refused_though_it_is_intact(signed, alice, says):
    (signed / "README.md").write_text("Use these signs: they are the best.\n")
    reseal(signed)
    assert says("verify", signed)[0] == 0
    assert "about another store" in refused(says("verify", signed, "--signer", alice.public))
    assert "about another store" in refused(says("pull", signed, "pulled.zarr", "--signer", alice.public))


def test_a_changed_signature_is_refused(signed, alice, says):
    bundle = json.loads((signed / SIGNATURE).read_text())
    envelope = bundle["dsseEnvelope"]
    envelope["payload"] = ("A" if envelope["payload"][0] != "A" else "B") + envelope["payload"][1:]
    for content in (json.dumps(bundle), "{}", "[]", "no JSON", "", "[" * 100_000):
        (signed / SIGNATURE).write_text(content)
        assert "does not vouch" in refused(says("verify", signed, "--signer", alice.public))
        assert says("info", signed)[0] == 0


def test_a_pull_that_refuses_fetches_no_shard_and_one_that_does_not_brings_the_signature(signed, alice, says, tmp_path):
    bob = signers.key_pair(tmp_path, "bob")
    refused(says("pull", signed, "pulled.zarr", "--signer", bob.public))
    assert not Path("pulled.zarr").exists()
    assert not Path(".partial").exists()
    assert says("pull", signed, "pulled.zarr", "--signer", alice.public)[0] == 0
    assert contents(Path("pulled.zarr")) == contents(signed)


def test_who_names_a_new_signer_gets_the_new_signature(signed, alice, says, tmp_path):
    bob, ways = signers.key_pair(tmp_path, "bob"), (("pull", signed), ("import", "M.zip"))
    for way, _ in ways:
        assert says("pull", signed, f"{way}.zarr")[0] == 0
    assert says("sign", signed, "--key", bob.private)[0] == 0
    assert says("export", signed, "M.zip")[0] == 0
    for way, place in ways:
        assert says(way, place, f"{way}.zarr")[0] == 0
        assert says("verify", f"{way}.zarr", "--signer", alice.public)[0] == 0
        assert says(way, place, f"{way}.zarr", "--signer", bob.public)[0] == 0
        assert says("verify", f"{way}.zarr", "--signer", bob.public)[0] == 0


@pytest.mark.parametrize(
    "page", [b"<html>home</html>", b"\xff\xfe", b'{"message": "not found"}', b"[]", b"[" * 100_000]
)
def test_a_page_that_a_server_sends_for_a_missing_signature_becomes_none(store, says, page):
    with broken_http(store) as server:
        server.page = page
        assert says("pull", server.url, "pulled.zarr")[0] == 0
    assert contents(Path("pulled.zarr")) == contents(store)


def test_push_export_and_import_carry_the_signature(signed, alice, says, tmp_path):
    assert says("push", signed, "pushed.zarr")[0] == 0
    assert says("export", "pushed.zarr", "M.zip")[0] == 0
    bob = signers.key_pair(tmp_path, "bob")
    refused(says("import", "M.zip", "imported.zarr", "--signer", bob.public))
    assert not Path("imported.zarr").exists()
    assert says("import", "M.zip", "imported.zarr", "--signer", alice.public)[0] == 0
    assert contents(Path("imported.zarr")) == contents(Path("pushed.zarr")) == contents(signed)


def test_a_store_that_was_signed_after_it_was_pushed_is_signed_there_by_another_push(store, alice, says):
    assert says("push", store, "pushed.zarr")[0] == 0
    assert says("pull", "pushed.zarr", "pulled.zarr")[0] == 0
    assert says("sign", store, "--key", alice.private)[0] == 0
    assert says("push", store, "pushed.zarr")[0] == 0
    assert says("pull", "pushed.zarr", "pulled.zarr", "--signer", alice.public)[0] == 0
    assert contents(Path("pulled.zarr")) == contents(store)


def test_repair_keeps_a_signature_valid(signed, alice, says):
    whole = contents(signed)
    (signed / "README.md").write_text("damaged")
    assert says("repair", signed)[0] == 0
    assert contents(signed) == whole
    assert says("verify", signed, "--signer", alice.public)[0] == 0


def model_signing(*arguments):
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_librarys_own_command_checks_our_signatures(signed, alice, says):
    options = ("--signature", signed / SIGNATURE, "--public_key", alice.public)
    answer = model_signing("verify", "key", signed, *options)
    assert answer.returncode == 0, answer
    (signed / "signs/c/0/0/0").write_bytes(b"")
    assert model_signing("verify", "key", signed, *options).returncode != 0


def test_a_signature_by_the_librarys_own_command_is_accepted(store, alice, says):
    made = model_signing("sign", "key", store, "--signature", store / SIGNATURE, "--private_key", alice.private)
    assert made.returncode == 0, made
    assert says("verify", store, "--signer", alice.public)[0] == 0


def sign_certified(says, store, made):
    return says("sign", store, "--key", made.private, "--certificate", made.certificate, "--chain", made.chain)


def test_a_certificate_of_the_authority_vouches_and_one_of_another_does_not(store, says, alice, tmp_path):
    lab, other = signers.certified(tmp_path, "lab"), signers.certified(tmp_path, "other")
    assert sign_certified(says, store, lab)[0] == 0
    assert says("verify", store, "--signer", lab.authority)[0] == 0
    assert "its certificate is refused" in refused(says("verify", store, "--signer", other.authority))
    assert "and not by key" in refused(says("verify", store, "--signer", alice.public))
    assert says("sign", store, "--key", alice.private)[0] == 0
    assert "and not with a certificate" in refused(says("verify", store, "--signer", lab.authority))
    answer = model_signing("verify", "certificate", store, "--signature", store / SIGNATURE)
    assert answer.returncode != 0


def test_a_certificate_that_ran_out_since_is_refused(store, says, tmp_path, monkeypatch):
    from gradshard.storage.maintenance import vouching

    old = signers.certified(tmp_path, "old", age=datetime.timedelta(days=366))
    code, _, err = sign_certified(says, store, old)
    assert (code, "is valid from" in err) == (2, True)
    monkeypatch.setattr(vouching, "_check_dates", lambda certificates, path: None)  # as it was when it was valid
    assert sign_certified(says, store, old)[0] == 0
    chain = ("--signature", store / SIGNATURE, "--certificate_chain", old.authority)
    assert model_signing("verify", "certificate", store, *chain).returncode == 0  # which is why we look ourselves
    assert "expired" in refused(says("verify", store, "--signer", old.authority))
    assert "expired" in refused(says("pull", store, "pulled.zarr", "--signer", old.authority))
    assert not Path("pulled.zarr").exists()


def test_a_certificate_that_is_not_for_signing_is_refused(store, says, tmp_path):
    made = signers.certified(tmp_path, "server", signs=False)
    assert sign_certified(says, store, made)[0] == 0
    assert "not one for signing" in refused(says("verify", store, "--signer", made.authority))


def test_an_encrypted_key_needs_its_password(store, says, tmp_path, monkeypatch):
    carol = signers.key_pair(tmp_path, "carol", password="secret")
    for password in (None, "wrong"):
        if password:
            monkeypatch.setenv("GRADSHARD_KEY_PASSWORD", password)
        code, _, err = says("sign", store, "--key", carol.private)
        assert (code, "GRADSHARD_KEY_PASSWORD" in err, err.count("\n")) == (2, True, 1)
        assert not (store / SIGNATURE).exists()
    monkeypatch.setenv("GRADSHARD_KEY_PASSWORD", "secret")
    assert says("sign", store, "--key", carol.private)[0] == 0
    assert says("verify", store, "--signer", carol.public)[0] == 0


def test_keys_that_cannot_be_used_are_told_in_a_sentence_with_exit_code_2(signed, alice, says, tmp_path):
    (tmp_path / "text.pem").write_text("no key")
    rsa = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "ed25519.pem"]
    subprocess.run(rsa, check=True, capture_output=True)
    made, other = signers.certified(tmp_path, "lab"), signers.certified(tmp_path, "other")
    before = contents(signed)
    for arguments in (
        ("verify", signed, "--signer", "nothing.pub"),
        ("verify", signed, "--signer", "text.pem"),
        ("verify", signed, "--signer", alice.private),
        ("pull", signed, "pulled.zarr", "--signer", "text.pem"),
        ("sign", signed, "--key", "nothing.pem"),
        ("sign", signed, "--key", alice.public),
        ("sign", signed, "--key", "ed25519.pem"),
        ("sign", signed, "--key", "text.pem"),
        ("sign", signed, "--key", alice.private, "--chain", made.chain),
        ("sign", signed, "--key", alice.private, "--certificate", "text.pem"),
        ("sign", signed, "--key", made.private, "--certificate", other.certificate),
        ("sign", "nothing.zarr", "--key", alice.private),
    ):
        code, _, err = says(*arguments)
        assert (code, err.startswith("gradshard: "), err.count("\n")) == (2, True, 1), (arguments, err)
    assert contents(signed) == before
    assert not Path("pulled.zarr").exists()
