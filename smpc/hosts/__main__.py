"""Each party on a host of its own: what its administrator does there.

python -m smpc.hosts certificate alice >> parties.toml
python -m smpc.hosts COMMAND --help
"""

import importlib
import sys

from smpc import process
from smpc.hosts import PROGRAM

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing

from smpc.arguments import Parser

# Of each command: the module with its `arguments` and `main`, imported for it alone; what it does.
COMMANDS = {
    "certificate": ("certificates", "make a party's key and certificate"),
    "split": ("parts", "make the owners' parts of MNIST"),
    "serve": ("serve", "be a party, until it is told to end"),
    "show": ("plans", "tell what a plan runs, and reveals to whom"),
    "journal": ("journal", "tell what a party has given away so far"),
    "health": ("health", "tell if a party is up"),
    "loopback": ("loopback", "train with all parties on this machine, a process each"),
}


@process.in_order(PROGRAM)
def main(argv=None):
    """Run the command that `argv`, by default the process's arguments, begins with."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(__doc__.split("\n")[0], PROGRAM)
    listing = "; ".join(f"{command}: {what}" for command, (_, what) in COMMANDS.items())
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help=listing)
    command = parser.parse_args(argv[:1]).command
    module = importlib.import_module(f"smpc.hosts.{COMMANDS[command][0]}")
    parser = Parser(COMMANDS[command][1], PROGRAM)
    parser.add_argument("command", choices=[command], metavar=command, help="this command")
    module.arguments(parser)
    module.main(parser.parse_args(argv))


if __name__ == "__main__":
    main()
