"""The parties' file: what is in it is what is read, and every mistake is one line that names it."""

import base64
import datetime
import functools
import json
import os
import pathlib
import tempfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smpc.hosts import certificates, configuration
from smpc.hosts.configuration import ConfigurationError, host_of, owner_of, parse_address, read

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
new_key = functools.partial(ec.generate_private_key, ec.SECP256R1())


def certify(name, key=None, first=NOW - DAY, last=NOW + DAY):
    """A party's certificate, PEM, a string."""
    made = certificates.self_signed(key or new_key(), name, first, last)
    return made.public_bytes(Encoding.PEM).decode()


def party(name, role, port=None, **more):
    """A party as the file has it, a dict."""
    address = {} if port is None else {"address": f"10.0.0.1:{port}"}
    return {"name": name, "role": role, **address, **more, "certificate": certify(name)}


ALICE = party("alice", "worker", 7001, train_items=320, test_items=100)
BOB = party("bob", "worker", 7002)
DEALER = party("dealer", "crypto provider", 7003)
SERVER = party("the-server", "server")
CAROL = party("carol", "client", 7004, test_items=5)
ALL = [ALICE, DEALER, BOB, SERVER, CAROL]  # in no order of roles
ANOTHER = certify("alice")


def toml(tables):
    """The file with these parties: JSON's strings, numbers and arrays are TOML's."""
    lines = []
    for table in tables:
        lines.append("[[party]]")
        for key, value in table.items():
            shown = f'"""\n{value}"""' if key == "certificate" else json.dumps(value)
            lines.append(f"{key} = {shown}")
    return "\n".join(lines)


LINES = toml(ALL).splitlines()


@pytest.fixture
def written(tmp_path):
    """written(content) -> the path of a file with that, text, bytes, or a list of parties."""

    def written(content):
        path = tmp_path / "parties.toml"
        content = toml(content) if isinstance(content, list) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def refusal(path):
    """The line that says why a file is refused, without its name."""
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    line = str(refused.value)
    assert line.startswith(f"{path}: ")
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    return line.removeprefix(f"{path}: ")


# ---- What is read --------------------------------------------------------------------------------


def test_read(written):
    found = read(written(ALL))
    assert list(found.parties) == ["alice", "dealer", "bob", "the-server", "carol"]
    assert (found.workers, found.clients) == (("alice", "bob"), ("carol",))
    assert (found.provider, found.server) == ("dealer", "the-server")
    for table in ALL:
        there = found.parties[table["name"]]
        assert (there.name, there.role) == (table["name"], table["role"])
        assert there.address == table.get("address")
        assert there.certificate == table["certificate"].encode()
        assert there.train_items == table.get("train_items", 0)
        assert there.test_items == table.get("test_items", 0)
        certificate = x509.load_pem_x509_certificate(there.certificate)
        assert there.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
        assert found.by_fingerprint(there.fingerprint) is there
    assert found.by_fingerprint("0" * 64) is None


def test_roster(written):
    roster = read(written(ALL)).roster()
    assert (roster.orchestrator, roster.provider) == ("the-server", "dealer")
    assert roster.workers == ("alice", "bob")
    assert roster.owners == ("alice-data", "bob-data", "carol-data", "the-server-data")
    ends = (roster.orchestrator, roster.provider, *roster.workers, *roster.owners)
    assert len(set(ends)) == 8
    assert list(map(host_of, map(owner_of, ends[:4]))) == [*ends[:4]]
    assert list(map(host_of, ends[:4])) == [*ends[:4]]


@pytest.mark.parametrize("n", [2, 5])
def test_numbers_of_workers(written, n):
    workers = [party(f"worker{i}", "worker", 7010 + i) for i in range(n)]
    assert len(read(written([*workers, DEALER, SERVER])).workers) == n


def test_a_certificate_is_brought_to_one_form(written):
    pem = ALICE["certificate"]
    spaced = "It is alice's:\r\n" + pem.replace("\n", "\r\n") + "\r\n"
    found = read(written([{**ALICE, "certificate": spaced}, *ALL[1:]]))
    assert found.parties["alice"].certificate == pem.encode()


# ---- Mistakes ------------------------------------------------------------------------------------

KEY_PEM = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Alice"}, "party 1: name 'Alice': use at most 32 of a-z, 0-9 and -"),
        ({"name": "1st"}, "party 1: name '1st'"),
        ({"name": "a" * 33}, "party 1: name 'aaa"),
        ({"name": "alice\n"}, r"party 1: name 'alice\n'"),
        ({"name": "../alice"}, "party 1: name '../alice'"),
        ({"name": "alicé"}, "party 1: name 'alicé'"),
        ({"name": "bob-data"}, "party 1: name 'bob-data': use"),
        ({"name": 5}, "party 1: name = 5: use a string"),
        ({"name": None}, "party 1: it has no name: add one"),
        ({"role": None}, "party alice: it has no role: add one"),
        ({"role": "boss"}, "party alice: role 'boss': use one of worker, crypto provider, server"),
        ({"role": ["worker"]}, "party alice: role = ['worker']: use a string"),
        ({"role": "client"}, "party alice: a client has no train_items: leave it out"),
        ({"role": "server"}, "party alice: a server has no address: leave it out"),
        ({"colour": "red"}, "party alice: unknown: 'colour': use name, role, address"),
        ({"address": None}, "party alice: it has no address: add the host:port"),
        ({"address": 7001}, "party alice: address = 7001: use a string"),
        ({"address": certificates.UNKNOWN}, "party alice: address 'HOST:PORT': use host:port"),
        ({"address": "10.0.0.1:07003"}, "party dealer: it has the same address as party alice"),
        ({"train_items": -1}, "party alice: train_items = -1: use 0 to"),
        ({"train_items": 2**48}, "party alice: train_items = 281474976710656: use 0 to"),
        ({"test_items": 1.5}, "party alice: test_items = 1.5: use a whole number"),
        ({"test_items": True}, "party alice: test_items = True: use a whole number"),
        ({"certificate": None}, "party alice: it has no certificate: put in the one that"),
        ({"certificate": ""}, "party alice: its certificate is damaged, or not one self"),
        ({"certificate": "alice.pem"}, "party alice: its certificate is damaged, or not one self"),
        ({"certificate": ANOTHER * 2}, "party alice: its certificate is damaged, or not one self"),
        ({"certificate": BOB["certificate"]}, "party alice: its certificate is of 'bob'"),
        ({"certificate": KEY_PEM}, "line 8 has a private key, which must not leave its host"),
    ],
)
def test_mistakes_of_one(written, change, message):
    changed = {key: value for key, value in {**ALICE, **change}.items() if value is not None}
    assert refusal(written([changed, *ALL[1:]])).startswith(message)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([ALICE, BOB, DEALER], "it has 0 parties of role server: name one"),
        ([ALICE, BOB, SERVER], "it has 0 parties of role crypto provider: name one"),
        ([*ALL, party("dan", "crypto provider", 1)], "it has 2 parties of role crypto provider"),
        ([*ALL, party("dan", "server")], "it has 2 parties of role server: name one"),
        ([ALICE, DEALER, SERVER], "it has 1 workers: name 2 to 5"),
        ([*ALL, *(party(f"w{i}", "worker", i + 1) for i in range(4))], "it has 6 workers"),
        ([*ALL, BOB], "party bob: it has the same name as party bob, number 3 in the file"),
    ],
)
def test_mistakes_of_all(written, tables, message):
    assert refusal(written(tables)).startswith(message)


def test_a_key_is_one_party_s(written):
    key = new_key()
    two = [{**t, "certificate": certify(t["name"], key)} for t in (ALICE, BOB)]
    message = "party bob: it has the same key as party alice, number 1 in the file"
    assert refusal(written([*two, DEALER, SERVER])).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it names no party: put in what `python -m smpc.hosts certificate` prints"),
        ("# nobody\n", "it names no party"),
        ("[party]\nname = 'alice'\n", "a party begins with [[party]], in two brackets"),
        ("party = 'alice'\n", "a party begins with [[party]], in two brackets"),
        ("party = [1]\n", "a party begins with [[party]], in two brackets"),
        ("port = 7001\n" + toml(ALL), "unknown: 'port': it has [[party]] alone"),
        (toml(ALL) + "\n[[partner]]\nname = 'dan'\n", "unknown: 'partner'"),
        ("[[party]]\nname = alice\n", "not TOML: Invalid value (at line 2, column 8)"),
        ("[[party]]\nname = 'a'\nname = 'b'\n", "not TOML: Cannot overwrite a value (at line 3"),
        (b"[[party]]\nname = '\xff'\n", "line 2 is not UTF-8"),
        ("a = " + "[\n" * 100_000, "not TOML that describes parties: too deeply nested"),
        ("a" + ".a" * 1000 + " = 1", "line 1 is too long"),
        ("[[party]]\nname = 0x" + "f" * 1000, "party 1: name = "),
        ("#" * (configuration.MOST + 1), "262,145 bytes, more than"),
        (f"{toml(ALL)}\n# {KEY_PEM}", f"line {len(LINES) + 1} has a private key"),
    ],
)
def test_mistakes_of_the_file(written, content, message):
    assert refusal(written(content)).startswith(message)


def test_files_that_are_none(tmp_path, written):
    assert refusal(tmp_path / "parties.toml") == "No such file or directory"
    assert "not a file" in refusal(tmp_path)
    assert "not a file" in refusal("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    assert "not a file" in refusal(tmp_path / "fifo")
    path = written(ALL)
    os.truncate(path, 1 << 40)
    assert "more than" in refusal(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(written):
    path = written(ALL)
    path.chmod(0)
    assert refusal(path) == "Permission denied"


# ---- Certificates --------------------------------------------------------------------------------


def of_nobody():
    """alice's by its subject alone."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    key = new_key()
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    certificate = builder.not_valid_before(NOW).not_valid_after(NOW).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (certify("alice", last=NOW - DAY / 2), f"was valid until {NOW - DAY / 2:%Y-%m-%d %H:%M}"),
        (certify("alice", first=NOW + DAY / 2), f"not valid before {NOW + DAY / 2:%Y-%m-%d %H:%M}"),
        (certify("alice", ec.generate_private_key(ec.SECP384R1())), "not of an ECDSA key on P-256"),
        (certify("alice", rsa.generate_private_key(65537, 2048)), "not of an ECDSA key on P-256"),
        (of_nobody(), "names nobody"),
    ],
)
def test_certificates_that_will_not_do(written, pem, message):
    refused = refusal(written([{**ALICE, "certificate": pem}, *ALL[1:]]))
    assert refused.startswith("party alice: its certificate ")
    assert message in refused


def refused_or_read(content):
    """The `Configuration` in such a file, or None if it is refused, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "parties.toml"
        path.write_bytes(content)
        try:
            return read(path)
        except ConfigurationError:
            refusal(path)
            return None


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_byte_of_a_certificate_can_be_changed(data):
    """It would be refused in a handshake; here it has a line that says so."""
    der = der_of(ALICE["certificate"])
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    assert refused_or_read(with_certificate(der)) is None


def test_a_signature_of_all_but_the_last_bit():
    """A bit string may say that its last bits are not used: `cryptography` takes them all."""
    while (der := der_of(certify("alice")))[-1] % 2:
        pass
    signature = x509.load_der_x509_certificate(bytes(der)).signature
    assert refused_or_read(with_certificate(der)) is not None
    der[-len(signature) - 1] = 1
    assert refused_or_read(with_certificate(der)) is None


def der_of(pem):
    """A certificate's bytes, to change."""
    return bytearray(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER))


def with_certificate(der):
    """The file in which alice's certificate has these bytes."""
    body = base64.encodebytes(bytes(der)).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    return toml([{**ALICE, "certificate": pem}, *ALL[1:]]).encode()


# ---- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7001", "10.0.0.1:7001"),
        ("Alice.Example:065", "alice.example:65"),
        ("localhost:65535", "localhost:65535"),
        ("[FD00:0:0::1]:7001", "[fd00::1]:7001"),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "alice", "alice:", ":7001", "alice:0", "alice:65536", "alice:-1", "alice:+1"),
        *("alice: 1", " alice:1", "alice:1\n", "alice:٣", "alice:1:2", "fd00::1:7001", "[fd00::1]"),
        *("[10.0.0.1]:1", "[::1:1", "[fe80::1%eth0]:1", "[::]:1", "0.0.0.0:1", "10.0.0.256:1"),
        *("10.0.1:1", "010.0.0.1:1", "-a:1", "a-:1", "a..b:1", ".a:1", "a.:1", "a_b:1", "a/b:1"),
        *("dns:///alice:1", f"{'a' * 64}:1", f"{'a.' * 127}a:1"),
    ],
)
def test_no_addresses(text):
    with pytest.raises(ConfigurationError, match=r"^address '.*: use host:port"):
        parse_address(text)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 65535))
def test_addresses_are_brought_to_one_form(ip, port):
    if ip.is_unspecified:
        return
    long = f"[{ip.exploded.upper()}]" if ip.version == 6 else str(ip)
    address = parse_address(f"{long}:{port:05}")
    assert address == (f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}")
    assert parse_address(address) == address


# ---- Anything ------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *('"', "'", '"""', "[", "]", "[[", "]]", "{", "}", "=", ",", "#", ".", "\\", "\\u0000"),
        *("\n", "\r", "\0", "\x7f", "é", "\u2028", "\ufeff", "1e400", "nan", "0x", "1979-05-27"),
        *("[party]", "[[party]]", "[party.name]", "name", "role = 'server'\n", "99999999999999"),
    ]
)


@st.composite
def mutations(draw):
    """A good file, a few times mutated."""
    lines = list(LINES)
    for _ in range(draw(st.integers(0, 3))):
        i, j = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.sampled_from(["drop", "double", "swap", "insert", "cut"])):
            case "drop":
                lines[i] = ""
            case "double":
                lines.insert(j, lines[i])
            case "swap":
                lines[i], lines[j] = lines[j], lines[i]
            case "insert":
                at = draw(st.integers(0, len(lines[i])))
                lines[i] = (
                    lines[i][:at] + draw(PIECES | st.characters(codec="utf-8")) + lines[i][at:]
                )
            case "cut":
                lines[i] = lines[i][: draw(st.integers(0, len(lines[i])))]
    content = bytearray("\n".join(lines).encode())
    for _ in range(draw(st.integers(0, 2))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@settings(deadline=None, max_examples=200)
@given(mutations() | st.binary(max_size=200))
@example("\n".join(LINES).encode())
def test_a_mutated_file_is_read_or_refused_in_one_line(content):
    found = refused_or_read(content)
    assert found is not None or content != "\n".join(LINES).encode()
    if found is not None:
        assert 2 <= len(found.workers) <= 5
        assert {found.provider, found.server} <= found.parties.keys()
        assert all(map(configuration.is_name, found.parties))
        assert len({party.fingerprint for party in found.parties.values()}) == len(found.parties)
