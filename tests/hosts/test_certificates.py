"""A party's key and certificate: made once, by the command, for its user alone; and loaded."""

import contextlib
import os
import pathlib
import ssl
import stat
import subprocess
import sys
import tomllib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from smpc.hosts import PROGRAM, certificates, configuration
from smpc.hosts.__main__ import COMMANDS
from smpc.hosts.__main__ import main as hosts
from smpc.hosts.certificates import CertificateError, load
from smpc.hosts.configuration import Party


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    """The folder that the command is run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def certificate(capsys):
    """certificate(*arguments) -> what the command prints."""

    def certificate(*arguments):
        hosts(["certificate", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return certificate


@pytest.fixture
def refused(fails):
    """refused(*arguments) -> the line of a command that fails, and makes no file."""

    def refused(*arguments):
        before = files()
        line = fails(PROGRAM, lambda: hosts(["certificate", *map(str, arguments)]))
        assert files() == before
        return line

    return refused


def files():
    """What is in the folder: path -> content, of regular files."""
    return {path: path.read_bytes() for path in pathlib.Path().rglob("*") if path.is_file()}


def mode(path):
    return stat.S_IMODE(pathlib.Path(path).lstat().st_mode)


# ---- Making --------------------------------------------------------------------------------------


@pytest.fixture
def umask():
    """umask(mask): until the test ends."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277, 0o777])
def test_only_its_user_may_read_it(certificate, umask, mask):
    umask(mask)
    certificate("alice")
    assert mode("alice") == 0o700
    assert mode("alice/key.pem") == mode("alice/certificate.pem") == 0o600
    assert sorted(path.name for path in pathlib.Path("alice").iterdir()) == [
        "certificate.pem",
        "key.pem",
    ]


def test_the_certificate(certificate):
    printed = certificate("alice", "--days", 30)
    made = x509.load_pem_x509_certificate(pathlib.Path("alice/certificate.pem").read_bytes())
    key = load_pem_private_key(pathlib.Path("alice/key.pem").read_bytes(), None)
    assert pathlib.Path("alice/key.pem").read_text().startswith("-----BEGIN PRIVATE KEY")  # PKCS8
    assert isinstance(key.curve, ec.SECP256R1)
    assert made.public_key() == key.public_key()
    made.verify_directly_issued_by(made)
    has = made.extensions.get_extension_for_class
    assert has(x509.BasicConstraints).critical
    assert not has(x509.BasicConstraints).value.ca
    usage = has(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not (usage.value.key_cert_sign or usage.value.crl_sign or usage.value.key_agreement)
    assert {usage._name for usage in has(x509.ExtendedKeyUsage).value} == {
        "serverAuth",
        "clientAuth",
    }
    names = has(x509.SubjectAlternativeName).value
    assert [*names] == [x509.DNSName("alice")]
    life = made.not_valid_after_utc - made.not_valid_before_utc
    assert life.days == 30
    read_aloud = printed.splitlines()[0].removeprefix("# fingerprint of alice, SHA-256: ")
    assert bytes.fromhex(read_aloud) == made.fingerprint(hashes.SHA256())
    assert {len(group) for group in read_aloud.split(" ")} == {4}


def test_no_two_are_the_same(certificate):
    blocks = [certificate("alice", "--home", home) for home in "ab"]
    made = [
        x509.load_pem_x509_certificate(pathlib.Path(home, "certificate.pem").read_bytes())
        for home in "ab"
    ]
    assert blocks[0] != blocks[1]
    assert made[0].serial_number != made[1].serial_number
    assert made[0].public_key() != made[1].public_key()


ROLES = {
    "alice": ("worker", "--address", "10.0.0.1:7001", "--train-items", "320", "--test-items", "0"),
    "bob": ("worker", "--address", "Bob.Example:07001"),
    "carol": ("client", "--address", "[fd00:0::1]:7001", "--test-items", "5"),
    "dealer": ("crypto provider", "--address", "10.0.0.3:7001"),
    "me": ("server",),
}


def test_what_it_prints_are_the_parties(certificate):
    """All of its output, one after the other, is the parties' file."""
    printed = "".join(certificate(name, "--role", *more) for name, more in ROLES.items())
    pathlib.Path("parties.toml").write_text(printed)
    parties = configuration.read("parties.toml").parties
    assert {name: party.role for name, party in parties.items()} == {
        name: role for name, (role, *_) in ROLES.items()
    }
    alice, bob, carol, _, me = parties.values()
    assert (alice.train_items, alice.test_items, bob.train_items) == (320, 0, 0)
    assert (carol.address, carol.test_items) == ("[fd00::1]:7001", 5)
    assert (bob.address, me.address) == ("bob.example:7001", None)
    for name, party in parties.items():
        key, pem = load(name, party)
        assert key == pathlib.Path(name, "key.pem").read_bytes()
        assert pem == party.certificate


def test_without_an_address_there_is_a_place_for_it(certificate):
    (table,) = tomllib.loads(certificate("alice"))["party"]
    assert (table["role"], table["address"]) == ("worker", certificates.UNKNOWN)


@pytest.mark.parametrize("name", certificates.KEY.split() + certificates.CERTIFICATE.split())
@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to nothing"])
def test_nothing_is_replaced(certificate, refused, name, kind):
    certificate("bob")
    pathlib.Path("alice").mkdir()
    path = pathlib.Path("alice", name)
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("../bob/key.pem")
        case "link to nothing":
            path.symlink_to("nothing")
    line = refused("alice")
    assert f"alice/{name} is there, and is never replaced: name another folder" in line
    assert [path.name for path in pathlib.Path("alice").iterdir()] == [name]


def test_twice(certificate, refused):
    certificate("alice")
    assert "alice/key.pem is there, and is never replaced" in refused("alice")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 2])
def test_no_key_is_left_without_its_certificate(monkeypatch, fails, at, error):
    synced = []

    def fsync(number):
        synced.append(number)
        if len(synced) == at:
            raise error

    monkeypatch.setattr(certificates.os, "fsync", fsync)
    if isinstance(error, OSError):
        name = [certificates.KEY, certificates.CERTIFICATE][at - 1]
        line = fails(PROGRAM, lambda: hosts(["certificate", "alice"]))
        assert f"alice/{name}: No space left on device" in line
    else:
        with pytest.raises(KeyboardInterrupt):
            hosts(["certificate", "alice"])
    assert len(synced) == at
    assert files() == {}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="Linux has it")
def test_what_cannot_be_printed_is_not_made(there):
    command = [sys.executable, "-m", "smpc.hosts", "certificate", "alice"]
    repository = pathlib.Path(certificates.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with pathlib.Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr == f"{PROGRAM}: error: stdout: No space left on device\n"
    assert files() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: name"),
        (["Alice"], "name 'Alice': use at most 32 of a-z, 0-9 and -"),
        (["../alice"], "name '../alice': use"),
        (["alice-data"], "name 'alice-data': use"),
        (["alice", "--role", "boss"], "--role: invalid choice: 'boss'"),
        (["alice", "--role", "server", "--address", "a:1"], "a server has no address"),
        (["alice", "--role", "client", "--train-items", 5], "a client has no train_items"),
        (["alice", "--train-items", "many"], "--train-items: invalid int value: 'many'"),
        (["alice", "--test-items", "-1"], "test_items = -1: use 0 to"),
        (["alice", "--address", "alice"], "address 'alice': use host:port"),
        (["alice", "--days", "0"], "--days: invalid positive int value: '0'"),
        (["alice", "--days", 10**12], "--days 1000000000000: use 3650 or less"),
        (["alice", "--home", ""], "--home: an empty path"),
        (["alice", "--home", "/dev/null"], "/dev/null/key.pem: Not a directory"),
        (["alice", "--home", "/dev/null/alice"], "/dev/null/alice/key.pem: Not a directory"),
    ],
)
def test_arguments(refused, arguments, message):
    assert message in refused(*arguments)


def test_commands(fails, capsys):
    assert "the following arguments are required: COMMAND" in fails(PROGRAM, lambda: hosts([]))
    assert "COMMAND: invalid choice: 'cert'" in fails(PROGRAM, lambda: hosts(["cert"]))
    with pytest.raises(SystemExit) as ended:
        hosts(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{command}: {what}" in shown for command, (_, what) in COMMANDS.items())


# ---- Loading -------------------------------------------------------------------------------------


@pytest.fixture
def alice(certificate):
    """The `Party` whose home is alice/; bob/ is another's."""
    certificate("alice")
    certificate("bob")
    pem = pathlib.Path("alice/certificate.pem").read_bytes()
    return Party("alice", "worker", "10.0.0.1:7001", pem)


def refusal(party):
    """The line that says why alice/ cannot be loaded."""
    with pytest.raises(CertificateError) as failed:
        load("alice", party)
    assert len(str(failed.value).splitlines()) == 1
    return str(failed.value)


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem"])
def test_files_that_are_none(alice, name):
    path, kept = pathlib.Path("alice", name), pathlib.Path("alice/kept")
    path.rename(kept)
    missing = f"alice/{name} is missing: make it by `{PROGRAM} certificate alice`"
    assert refusal(alice).startswith(missing)
    path.symlink_to("kept")
    assert refusal(alice) == f"alice/{name} is a link: put the file itself there"
    path.unlink()
    path.mkdir()
    assert refusal(alice).startswith(f"alice/{name}: not a file")
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert refusal(alice).startswith(f"alice/{name}: not a file")
    path.unlink()
    path.touch(0o600)
    os.truncate(path, 1 << 40)
    assert refusal(alice).startswith(f"alice/{name}: 1,099,511,627,776 bytes, more than")
    kept.rename(path)
    assert load("alice", alice)[1] == alice.certificate


@pytest.mark.parametrize("open_to", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_key_that_others_may_read(alice, open_to):
    pathlib.Path("alice/key.pem").chmod(0o600 | open_to)
    assert f"alice/key.pem: other users may read it (mode {0o600 | open_to:04o})" in refusal(alice)


def test_a_certificate_that_others_may_read(alice):
    pathlib.Path("alice/certificate.pem").chmod(0o644)
    assert load("alice", alice)[1] == alice.certificate


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_key_that_its_user_may_read(alice, mode):
    pathlib.Path("alice/key.pem").chmod(mode)
    assert load("alice", alice)[0] == pathlib.Path("alice/key.pem").read_bytes()


def replace(name, content):
    pathlib.Path("alice", name).write_bytes(content)


def test_what_is_another_s(alice):
    key, certificate = load("alice", alice)
    bobs = {name: pathlib.Path("bob", name).read_bytes() for name in ("key.pem", "certificate.pem")}
    replace("key.pem", bobs["key.pem"])
    assert refusal(alice).startswith("alice/key.pem is the key of another certificate: restore")
    replace("certificate.pem", bobs["certificate.pem"])
    assert refusal(alice).startswith("alice/certificate.pem is another certificate: restore")
    replace("key.pem", key)
    assert refusal(alice).startswith("alice/certificate.pem is another certificate: restore")
    replace("certificate.pem", certificate)
    assert load("alice", alice) == (key, certificate)


def test_damaged_keys(alice):
    key = pathlib.Path("alice/key.pem").read_bytes()
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")
    )
    for content in (b"", b"mine", key[:-30], key[:100], alice.certificate, locked):
        replace("key.pem", content)
        assert refusal(alice).startswith("alice/key.pem is no key, or damaged: restore")


# ---- In a handshake ------------------------------------------------------------------------------


def end(server_side, home, other):
    """One end of TLS 1.3 in memory, which shows the certificate in `home` and asks for other's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    context.load_cert_chain(f"{home}/certificate.pem", f"{home}/key.pem")
    context.load_verify_locations(f"{other}/certificate.pem")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = None if server_side else "alice"
    return context.wrap_bio(incoming, outgoing, server_side, name), incoming, outgoing


def shake_hands(server, client):
    """What each end has seen of the other when all has been said."""
    for _ in range(4):
        for (one, _, out), (_, incoming, _) in ((client, server), (server, client)):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
            incoming.write(out.read())
    return [one.getpeercert(binary_form=True) for one, _, _ in (server, client)]


def test_handshake(certificate):
    """Each trusts the other's certificate alone, by alice's name."""
    for name in ("alice", "bob"):
        certificate(name)
    certificate("alice", "--home", "another")
    seen = shake_hands(end(True, "alice", "bob"), end(False, "bob", "alice"))
    assert seen == [
        ssl.PEM_cert_to_DER_cert(pathlib.Path(home, "certificate.pem").read_text())
        for home in ("bob", "alice")
    ]
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(end(True, "another", "bob"), end(False, "bob", "alice"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(end(True, "alice", "bob"), end(False, "another", "alice"))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(end(True, "bob", "bob"), end(False, "bob", "bob"))
