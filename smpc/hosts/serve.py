"""`python -m smpc.hosts serve NAME`: a party on its host, until SIGTERM or Ctrl-C."""

import pathlib
import threading

from smpc import process
from smpc.arguments import path
from smpc.files import named, prepare_folder
from smpc.hosts import PROGRAM, channels, configuration, journal, plans, tables
from smpc.hosts.configuration import ConfigurationError, owner_of
from smpc.hosts.parts import Part
from smpc.hosts.party import TO_END, Party


def arguments(parser):
    """Add the options of `serve`."""
    add = parser.add_argument
    add("name", help="of the party, as in the parties file")
    add("--parties", type=path, required=True, metavar="FILE", help="who takes part")
    add("--data", type=path, metavar="DIR", help="folder with its part of the data")
    add("--plan", type=path, metavar="FILE", help="what it agrees to run, and reveal")
    add("--any-program", action="store_true", help="run whatever the server asks for")
    add("--home", type=path, metavar="DIR", help="its folder, by default beside --parties")
    add("--transcript", type=path, metavar="DIR", help="record what it sees of each session there")


def main(args):
    """Serve."""
    party, address = make(args)
    server = party.serve(address)
    if args.any_program:
        warning = "runs and reveals whatever the server asks for, since --any-program is given"
        process.tell(f"{PROGRAM}: warning: {args.name} {warning}")
    told = threading.Event()
    process.on_signals(lambda *_: told.set())
    with process.to_stdout():
        print(f"serving {args.name} at {address}")
    told.wait()
    server.stop(grace=TO_END)  # from here on no session begins
    party.stop(f"{args.name} is being stopped: start it, and {channels.GO_ON}")
    server.stop(grace=2).wait()
    with process.to_stdout():
        print(f"{args.name} has ended")


def make(args):
    """The `Party` that the arguments describe, and where it listens.

    Raises:
        FileError: it can't be.
    """
    if (args.plan is None) != args.any_program:
        raise ConfigurationError(
            "say with --plan FILE what may be run, or with --any-program that anything may"
        )
    parties = configuration.read(args.parties)
    me = parties.named(args.name)
    if me.address is None:
        raise ConfigurationError(f"{args.name} is the {me.role}, which calls and does not serve")
    plan = args.plan and plans.read(args.plan)
    if plan:
        plan.check_parties(parties)
        plan.check_weights()
        plan.check_privacy()
    part = args.data and (tables.read_part(args.data) or Part(args.data))
    if plan and part:
        plan.check_items(owner_of(args.name), part.shapes)
    given = (part.n_train, part.n_test) if part else (0, 0)
    asked = plan is None or owner_of(args.name) in plan.owners
    wanted = (me.train_items, me.test_items) if asked else (0, 0)
    if any(n < m for n, m in zip(given, wanted, strict=True)):
        counts = "{} training and {} test items"
        raise ConfigurationError(
            f"{args.parties} has {args.name} give {counts.format(*wanted)}, and --data has "
            f"{counts.format(*given)}"
        )
    with named(f"--transcript {args.transcript}"):
        transcripts = args.transcript and prepare_folder(args.transcript)
    home = pathlib.Path(args.home or pathlib.Path(args.parties).parent / args.name)
    kept = journal.Journal(home / journal.NAME)
    return Party(args.name, parties, home, part, plan, kept, show, transcripts), me.address


def show(values):
    """Print what is revealed to this party."""
    with process.to_stdout():
        print("revealed:", *values.tolist())
