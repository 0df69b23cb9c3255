"""The file that all hosts share, and that holds no secret: who takes part, and where.

    [[party]]
    name = "alice"
    role = "worker"                # or "crypto provider", "server", "client"
    address = "10.0.0.1:7001"      # where it listens; a server does not
    train_items = 320              # that it gives: a worker; 0 if left out
    test_items = 320               # a worker or a client
    certificate = \"\"\"
    -----BEGIN CERTIFICATE-----
    ...\"\"\"

`python -m smpc.hosts certificate` prints a party's block. There are one server, one crypto provider
and two to five workers; the order of the workers is the protocol's.
"""

import datetime
import hashlib
import ipaddress
import re
import ssl
import tomllib
import warnings
from collections import Counter
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from smpc.arguments import MOST_WORKERS
from smpc.files import FileError, named, regular
from smpc.hosts import PROGRAM
from smpc.semi2k import wire
from smpc.semi2k.randomness import MOST_RUNS
from smpc.semi2k.wire import PROVIDER, WORKER

SERVER, CLIENT = "server", "client"
ROLES = {  # what a party of each says beside its name, role and certificate
    WORKER: ("address", "train_items", "test_items"),
    PROVIDER: ("address",),
    SERVER: (),
    CLIENT: ("address", "test_items"),
}
KINDS = {
    **dict.fromkeys(("name", "role", "address", "certificate"), (str, "a string")),
    **dict.fromkeys(("train_items", "test_items"), (int, "a whole number")),
}
NAME = re.compile("[a-z][a-z0-9-]{0,31}")
HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
PRIVATE_KEY = re.compile("-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
DATA = "-data"  # what the id of an end that owns data has behind its party's name
UNUSABLE = (  # what `cryptography` raises about a certificate
    *(
        ValueError,
        TypeError,
        InvalidSignature,
        UnsupportedAlgorithm,
        CryptographyDeprecationWarning,
    ),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
MOST = 1 << 18  # bytes of the file: some 250 parties
MOST_LINE = 1 << 10  # characters: `a.a.a...` takes tomllib the square of its length


class ConfigurationError(FileError):
    """The file cannot be read, or something in it is wrong; the message is one line that says what,
    of which party, and what to do."""


@dataclass(frozen=True)
class Party:
    """A party, as the file has it.

    Attributes:
        name: [a-z0-9-], a letter first, at most 32 characters; `role`: of `ROLES`.
        address: host:port where it listens, in lower case; None of a server.
        certificate: PEM, bytes: one X.509 certificate and nothing else.
        train_items, test_items: how many it gives.
    """

    name: str
    role: str
    address: str | None
    certificate: bytes
    train_items: int = 0
    test_items: int = 0

    @property
    def fingerprint(self):
        """SHA-256 of the certificate in DER, lower-case hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.decode())).hexdigest()


class Configuration:
    """All parties.

    Args:
        parties: of `Party`, in the order of the file.
    Attributes:
        parties: name -> `Party`, in that order.
        workers, clients: tuples of names; provider, server: names.
    """

    def __init__(self, parties):
        self.parties = {party.name: party for party in parties}
        self._by_fingerprint = {party.fingerprint: party for party in parties}
        self.workers, self.clients = self._names(WORKER), self._names(CLIENT)
        (self.provider,), (self.server,) = self._names(PROVIDER), self._names(SERVER)

    def _names(self, role):
        return tuple(party.name for party in self.parties.values() if party.role == role)

    def named(self, name):
        """The `Party` of that name.

        Raises:
            ConfigurationError: there is none.
        """
        if name not in self.parties:
            known = ", ".join(self.parties)
            raise ConfigurationError(f"no party is called {_shown(name)}, but {known}")
        return self.parties[name]

    def by_fingerprint(self, sha256):
        """The `Party` whose certificate has this SHA-256, lower-case hexadecimal, or None."""
        return self._by_fingerprint.get(sha256)

    def with_clients(self, names):
        """The same parties, of the clients these alone."""
        parties = self.parties.values()
        return Configuration([p for p in parties if p.role != CLIENT or p.name in names])

    def roster(self):
        """The `semi2k.wire.Roster` of the ends on all hosts."""
        owners = (*self.workers, *self.clients, self.server)
        return wire.Roster(self.server, self.provider, self.workers, tuple(map(owner_of, owners)))


def owner_of(name):
    """The id of the end that owns the data of a party."""
    return name + DATA


def host_of(end):
    """The name of the party on whose host an end is, by its id."""
    return end.removesuffix(DATA)


# ---- Reading the file ----------------------------------------------------------------------------


def read(path):
    """The `Configuration` in the file at `path`.

    Raises:
        ConfigurationError: there is none, or something in it is wrong.
    """
    text = read_text(path, MOST)
    if found := PRIVATE_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigurationError(
            f"{path}: line {line} has a private key, which must not leave its host: take it out, "
            "and make that party a new key and certificate"
        )
    try:
        return Configuration(_parties(_tables(text)))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def read_text(path, most=1 << 26):
    """What a file of at most `most` bytes holds, a string.

    Raises:
        ConfigurationError: it cannot be read, is not a regular file, too large, or not UTF-8.
    """
    with named(path, ConfigurationError), regular(path, most) as file:
        content = file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}: line {line} is not UTF-8: save it as that") from error


def _tables(text):
    """The tables of parties in the file, dicts."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MOST_LINE:
            raise ConfigurationError(f"line {number} is too long: use {MOST_LINE} characters")
    try:
        content = tomllib.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError("not TOML that describes parties: too deeply nested") from error
    tables = content.pop("party", [])
    if content:
        raise ConfigurationError(f"unknown: {_shown(next(iter(content)))}: it has [[party]] alone")
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise ConfigurationError("a party begins with [[party]], in two brackets")
    if not tables:
        raise ConfigurationError(
            f"it names no party: put in what `{PROGRAM} certificate` prints for each"
        )
    return tables


def _parties(tables):
    """The parties that the tables describe, each well-formed, and all of them together."""
    parties, had = [], {}
    for number, table in enumerate(tables, 1):
        name = table.get("name")
        who = f"party {name if is_name(name) else number}"
        try:
            check(table)
            certificate = _certificate(table)
            party = Party(
                name,
                table["role"],
                _address(table),
                certificate.public_bytes(Encoding.PEM),
                table.get("train_items", 0),
                table.get("test_items", 0),
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{who}: {error}") from error
        for what, value in (
            ("name", party.name),
            ("address", party.address),
            ("key", certificate.public_key().public_numbers()),
        ):
            if value is not None and (other := had.setdefault((what, value), number)) != number:
                raise ConfigurationError(
                    f"{who}: it has the same {what} as party {tables[other - 1]['name']}, "
                    f"number {other} in the file: each needs its own"
                )
        parties.append(party)
    _check_roles(Counter(party.role for party in parties))
    return parties


def _check_roles(found):
    """Refuse other numbers of parties of each role, a Counter, than there have to be."""
    for role in (SERVER, PROVIDER):
        if found[role] != 1:
            raise ConfigurationError(f"it has {found[role]} parties of role {role}: name one")
    if not 2 <= found[WORKER] <= MOST_WORKERS:
        raise ConfigurationError(f"it has {found[WORKER]} workers: name 2 to {MOST_WORKERS}")


def check(table):
    """Check all that a party says of itself but its address and certificate.

    Args:
        table: a dict, as in the file.
    Raises:
        ConfigurationError: something is missing, unknown, of another type, or out of range.
    """
    for key, value in table.items():
        if key not in KINDS:
            raise ConfigurationError(f"unknown: {_shown(key)}: use {', '.join(KINDS)}")
        kind, what = KINDS[key]
        if type(value) is not kind:  # (True is an int)
            raise ConfigurationError(f"{key} = {_shown(value)}: use {what}")
    for key in ("name", "role"):
        if key not in table:
            raise ConfigurationError(f"it has no {key}: add one")
    name, role = table["name"], table["role"]
    if not is_name(name):
        raise ConfigurationError(
            f"name {_shown(name)}: use at most 32 of a-z, 0-9 and -, a letter first, "
            f"{DATA} not last"
        )
    if role not in ROLES:
        raise ConfigurationError(f"role {_shown(role)}: use one of {', '.join(ROLES)}")
    for key in table:
        if key in ROLES[WORKER] and key not in ROLES[role]:  # a worker may say anything
            raise ConfigurationError(f"a {role} has no {key}: leave it out")
    for key in ("train_items", "test_items"):
        if not wire.number(items := table.get(key, 0)):
            raise ConfigurationError(f"{key} = {_shown(items)}: use 0 to {MOST_RUNS - 1:,}")


def is_name(name):
    """Whether a party may be called so; no party has the id of another's end."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and not name.endswith(DATA)


def _shown(value):
    """Of a value from the file, as much as goes into a message."""
    try:
        return f"{value!r:.60}"
    except (ValueError, RecursionError):  # a number of thousands of digits; tables in tables
        return "a value too long to show"


# ---- Addresses -----------------------------------------------------------------------------------


def _address(table):
    """The address of the party that a checked table describes, or None."""
    if "address" not in ROLES[table["role"]]:
        return None
    if "address" not in table:
        raise ConfigurationError("it has no address: add the host:port where the others reach it")
    return parse_address(table["address"])


def parse_address(text):
    """`text`, host:port, in the one form in which equal addresses are equal.

    Raises:
        ConfigurationError: it is no address, or one that cannot be called.
    """
    host, _, port = text.lower().rpartition(":")
    try:
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
            raise ValueError("the port is none")
        return f"{_host(host)}:{int(port)}"
    except ValueError as error:
        raise ConfigurationError(
            f"address {_shown(text)}: use host:port, where the others reach it, such as "
            "10.0.0.1:7001, [fd00::1]:7001 or alice.example:7001"
        ) from error


def _host(host):
    if host.startswith("[") and host.endswith("]"):
        ip = ipaddress.IPv6Address(host[1:-1])
        if ip.scope_id is not None:
            raise ValueError("means something else on another host")
        host = f"[{ip}]"
    elif re.fullmatch("[0-9.]+", host):
        ip = ipaddress.IPv4Address(host)
    elif len(host) <= 253 and HOST.fullmatch(host):
        return host
    else:
        raise ValueError("no host")
    if ip.is_unspecified:
        raise ValueError("nobody can call it")
    return host


# ---- Certificates --------------------------------------------------------------------------------


def _certificate(table):
    """The certificate of the party that a checked table describes, an `x509.Certificate`: its own,
    with a key of the kind that the channels take, and valid today."""
    name = table["name"]
    advice = f"put in the one that `{PROGRAM} certificate {name}` made"
    if "certificate" not in table:
        raise ConfigurationError(f"it has no certificate: {advice}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)  # it is damaged, too
            (certificate,) = x509.load_pem_x509_certificates(table["certificate"].encode())
            key = certificate.public_key()
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names = extension.value.get_values_for_type(x509.DNSName)
            first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            certificate.verify_directly_issued_by(certificate)
            if not certificate.public_bytes(Encoding.DER).endswith(b"\0" + certificate.signature):
                raise ValueError("its signature is not of whole bytes")
    except x509.ExtensionNotFound as error:
        raise ConfigurationError(f"its certificate names nobody: {advice}") from error
    except UNUSABLE as error:
        raise ConfigurationError(
            f"its certificate is damaged, or not one self-signed certificate, in PEM: {advice}"
        ) from error
    if name not in names:
        raise ConfigurationError(f"its certificate is of {_shown(', '.join(names))}: {advice}")
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise ConfigurationError(f"its certificate is not of an ECDSA key on P-256: {advice}")
    now = datetime.datetime.now(datetime.UTC)
    if now < first:
        raise ConfigurationError(
            f"its certificate is not valid before {first:%Y-%m-%d %H:%M} UTC: set this host's "
            "clock, or wait"
        )
    if now > last:
        raise ConfigurationError(
            f"its certificate was valid until {last:%Y-%m-%d %H:%M} UTC: make a new key and "
            "certificate, or set this host's clock"
        )
    return certificate
