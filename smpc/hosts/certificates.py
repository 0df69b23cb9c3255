"""A party's key, which stays on its host, and its certificate, which everybody has.

    python -m smpc.hosts certificate alice --address 10.0.0.1:7001 >> parties.toml

It makes alice/key.pem and alice/certificate.pem, and prints TOML: the certificate's fingerprint, a
comment, to be read aloud to the administrators of the other hosts, and the party's block.
"""

import contextlib
import datetime
import json
import os
import pathlib
import stat

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from smpc.arguments import path, positive
from smpc.files import PRIVATE, FileError, named, regular
from smpc.hosts import PROGRAM, configuration
from smpc.hosts.configuration import ROLES, WORKER
from smpc.process import to_stdout

KEY, CERTIFICATE = "key.pem", "certificate.pem"  # in a party's home folder
MOST = 1 << 16  # bytes of each
MOST_DAYS = 3650
CLOCKS = datetime.timedelta(hours=1)  # by which other hosts' may be behind
UNKNOWN = "HOST:PORT"  # is no address: whoever reads it is told to put one in


class CertificateError(FileError):
    """A key or certificate cannot be made or used; the message is one line that says what to do."""


# ---- Making --------------------------------------------------------------------------------------


def arguments(parser):
    """Add the options of `certificate`."""
    add, items = parser.add_argument, {"type": int, "metavar": "N", "default": None}
    add("name", help="of the party")
    add("--home", type=path, metavar="DIR", help="its folder, by default ./NAME")
    add("--role", choices=list(ROLES), default=WORKER, help="of the party")
    add("--address", metavar="HOST:PORT", help="where the others reach it")
    add("--train-items", **items, help="training items that it gives")
    add("--test-items", **items, help="test items that it gives")
    add("--days", type=positive(int), default=825, help="until the certificate expires")


def main(args):
    """Make a key and a certificate, and print the party's block; all of it, or nothing.

    Raises:
        ConfigurationError: the parties' file may not have such a party.
        CertificateError: they cannot be made, or are there.
    """
    table = {"name": args.name, "role": args.role, "address": args.address}
    table |= {"train_items": args.train_items, "test_items": args.test_items}
    table = {key: value for key, value in table.items() if value is not None}
    configuration.check(table)
    if "address" in table:
        table["address"] = configuration.parse_address(args.address)
    elif "address" in ROLES[args.role]:
        table["address"] = UNKNOWN
    if args.days > MOST_DAYS:
        raise CertificateError(f"--days {args.days}: use {MOST_DAYS} or less")
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=args.days)
    certificate = self_signed(key, args.name, now - CLOCKS, until)
    pem = certificate.public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    home = pathlib.Path(args.home or args.name)
    with _files(home, {KEY: private, CERTIFICATE: pem}), to_stdout():
        print(block(table, certificate))


def self_signed(key, name, first, last):
    """A certificate of a party for its own key, which may sign nothing but handshakes.

    Args:
        key: its private key; `first`, `last`: datetimes between which it is valid.
    Returns:
        an `x509.Certificate`.
    """
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    other_usages = (
        *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    usage = x509.KeyUsage(digital_signature=True, **dict.fromkeys(other_usages, False))
    both = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def block(table, certificate):
    """TOML, for the parties' file.

    Args:
        table: what the party says of itself, in the file's keys, but for its certificate.
        certificate: an `x509.Certificate`.
    """
    digest = certificate.fingerprint(hashes.SHA256()).hex(" ", 2)
    return "\n".join(
        [
            f"# fingerprint of {table['name']}, SHA-256: {digest}",
            "[[party]]",
            *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
            f'certificate = """\n{certificate.public_bytes(Encoding.PEM).decode()}"""\n',
        ]
    )


@contextlib.contextmanager
def _files(home, contents):
    """Make files in a folder, for this user alone whatever the umask; they are taken away again if
    anything fails until the end.

    Args:
        home: the folder, a pathlib.Path, made if need be; `contents`: name -> bytes.
    Raises:
        CertificateError: one is there, or cannot be made.
    """
    with contextlib.ExitStack() as undo:
        with named(home, CertificateError), contextlib.suppress(FileExistsError):
            home.parent.mkdir(parents=True, exist_ok=True)
            home.mkdir()
            home.chmod(0o700)
        for name, content in contents.items():
            file = home / name
            try:
                with named(file, CertificateError):
                    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
                    undo.callback(file.unlink, missing_ok=True)
                    with os.fdopen(number, "wb") as opened:
                        os.fchmod(number, PRIVATE)
                        opened.write(content)
                        opened.flush()
                        os.fsync(number)
            except CertificateError as error:
                if isinstance(error.__cause__, FileExistsError):
                    raise CertificateError(
                        f"{file} is there, and is never replaced: name another folder by --home"
                    ) from error
                raise
        yield
        undo.pop_all()


# ---- Loading -------------------------------------------------------------------------------------


def load(home, party):
    """The key and the certificate of a party on its host.

    Args:
        home: its folder; `party`: the `configuration.Party`.
    Returns:
        (key, certificate), bytes, PEM.
    Raises:
        CertificateError: they are missing, not the party's, or anybody else may read the key.
    """
    home, advice = pathlib.Path(home), f"restore what the parties' file has for {party.name}"
    key, mode = _read(home / KEY, party)
    if mode & 0o077:
        raise CertificateError(
            f"{home / KEY}: other users may read it (mode {mode:04o}): `chmod 600` it, or, if one "
            "may have read it, make a new key and certificate"
        )
    certificate, _ = _read(home / CERTIFICATE, party)
    if certificate != party.certificate:
        raise CertificateError(f"{home / CERTIFICATE} is another certificate: {advice}")
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{home / KEY} is no key, or damaged: {advice}") from error
    if public != x509.load_pem_x509_certificate(certificate).public_key():
        raise CertificateError(f"{home / KEY} is the key of another certificate: {advice}")
    return key, certificate


def _read(file, party):
    """What a file in a party's home folder holds, and its mode."""
    if file.is_symlink():
        raise CertificateError(f"{file} is a link: put the file itself there")
    if not file.exists():
        raise CertificateError(
            f"{file} is missing: make it by `{PROGRAM} certificate {party.name}`, or name the "
            "folder that has it by --home"
        )
    with named(file, CertificateError), regular(file, MOST) as opened:
        return opened.read(), stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
