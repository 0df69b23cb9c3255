"""`python -m smpc.hosts health NAME`: whether a party is up, by gRPC's standard health service."""

import pathlib

import grpc

from smpc import process
from smpc.arguments import path, positive
from smpc.hosts import certificates, channels, configuration


def arguments(parser):
    """Add the options of `health`."""
    add = parser.add_argument
    add("name", help="of the party to ask")
    add("--parties", type=path, required=True, metavar="FILE", help="who takes part")
    add("--as", dest="caller", metavar="NAME", help="who asks, from its host; by default the party")
    add("--home", type=path, metavar="DIR", help="of who asks, by default beside --parties")
    add("--time-limit", type=positive(float), default=5, metavar="SECONDS", help="to answer in")


def main(args):
    """Ask, and say what comes back; exit status 1 if the party is not up."""
    parties = configuration.read(args.parties)
    party, caller = parties.named(args.name), parties.named(args.caller or args.name)
    home = pathlib.Path(args.home or pathlib.Path(args.parties).parent / caller.name)
    identity = certificates.load(home, caller)
    if party.address is None:
        raise configuration.ConfigurationError(f"{party.name} calls, and does not serve")
    try:
        with channels.dial(party, *identity) as channel:
            check = channel.unary_unary(f"/{channels.HEALTH}/Check")
            up = check(b"", timeout=args.time_limit) == channels.SERVING
        said = f"{party.name} at {party.address} is {'up' if up else 'not serving'}"
    except grpc.RpcError as error:
        up, said = False, channels.reason(error, party)
    with process.to_stdout():
        print(said)
    raise SystemExit(not up)
