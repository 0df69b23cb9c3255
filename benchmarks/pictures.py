"""The pictures that need no run: who holds what, and those that a record is kept of.

    make pictures       # some seconds; draws results/parties.png, and what has a record anew

`docs/step.png` and `results/audit.png` show what is in no record: `make bench-rounds` and
`make audit` draw them.
"""

import json
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from benchmarks import growth, hosts, training
from benchmarks.privacy import __main__ as privacy
from smpc.files import write_whole
from smpc.pictures import BLUE, GREEN, MUTED, SMALL, VERMILLION, as_png, caption

RECORDS = {  # that the commands leave, and what draws them
    training.RESULTS / "cost.json": training.picture,
    training.RESULTS / "hosts.json": hosts.picture,
    training.RESULTS / "privacy.json": privacy.picture,
    growth.RECORD: growth.picture,
}

# ---- Who holds what, and who says what to whom ---------------------------------------------------


class Box(NamedTuple):
    """A party, with what it sees and never sees; places and sizes here and below are in inches."""

    name: str
    left: float
    bottom: float
    width: float
    height: float
    sees: str
    never: str


class Arrow(NamedTuple):
    """What one party sends another: of a kind, from where to where, and where that stands."""

    kind: str
    start: tuple
    end: tuple
    text: str
    at: tuple


SIZE = 9.4, 6.3
SETTING = (
    "Training and testing under semi2k. By default all parties are in one process, or each is on a "
    "host of its own. It is assumed that no two put together what they see."
)
WORKER = (
    "sees its own shares,\nwhich alone are noise\n\n"
    "the randomness that\nis dealt to it\n\n"
    "opened values, each\nunder a mask of its own\n\n"
    "which runs were\nbroken off",
    "never sees the other's\nshares or data,\na mask in the clear",
)
BOXES = (
    Box("worker1", 0, 0, 1.95, 6.3, *WORKER),
    Box("worker2", 7.45, 0, 1.95, 6.3, *WORKER),
    Box(
        *("owners of the data", 3.25, 4.15, 2.9, 1.25),
        "see their own images and labels,\nand the masks of these",
        "never see a share, others' data",
    ),
    Box(
        *("crypto provider", 3.5, 2.1, 2.65, 1.4),
        "sees shapes, programs, which\nruns were made anew, and the\nrandomness that it makes",
        "never sees a share, an opened\nvalue, data",
    ),
    Box(
        *("orchestrator: the script", 3.25, 0, 2.9, 1.45),
        "sees shapes, and what is revealed:\na batch's loss, a test's count",
        "never sees any other share, an\nopened value, a mask, data",
    ),
)
KINDS = {  # colour and dash
    "masked": (BLUE, "-"),
    "randomness": (VERMILLION, "--"),
    "instructions": (MUTED, ":"),
    "revealed": (GREEN, "-."),
}
FLAT = dict.fromkeys(("solid_capstyle", "dash_capstyle"), "butt")  # within its ends
OPENED = "each round: its shares of values under masks, which both add up"
ARROWS = (
    Arrow("masked", (1.95, 5.75), (7.45, 5.75), OPENED, (4.7, 5.95)),
    Arrow("masked", (3.25, 4.55), (1.95, 4.55), "all data,\nunder masks", (2.6, 4.83)),
    Arrow("masked", (6.15, 4.55), (7.45, 4.55), "all data,\nunder masks", (6.8, 4.83)),
    Arrow("randomness", (3.5, 2.55), (1.95, 2.55), "key of its\nrandomness", (2.6, 2.83)),
    Arrow(
        *("randomness", (6.15, 2.55), (7.45, 2.55)),
        *("key of its\nrandomness,\ncorrections", (6.8, 2.91)),
    ),
    Arrow("randomness", (4.3, 3.5), (4.3, 4.15), "key of\nthe masks", (4.72, 3.825)),
    Arrow("instructions", (5.4, 4.15), (5.4, 3.5), "shapes", (5.72, 3.825)),
    Arrow("instructions", (3.375, 1.45), (3.375, 4.15), "what to share", (3.92, 1.775)),
    Arrow("instructions", (5.4, 1.45), (5.4, 2.1), "programs", (5.8, 1.775)),
    Arrow("instructions", (3.25, 1.1), (1.95, 1.1), "programs", (2.6, 1.25)),
    Arrow("instructions", (6.15, 1.1), (7.45, 1.1), "programs", (6.8, 1.25)),
    Arrow("revealed", (1.95, 0.25), (3.25, 0.25), "a share of what\nis revealed", (2.6, 0.53)),
    Arrow("revealed", (7.45, 0.25), (6.15, 0.25), "a share of what\nis revealed", (6.8, 0.53)),
)


@as_png
def parties():
    """Who holds what and says what to whom under `semi2k`, with two workers, as a PNG."""
    figure = Figure(figsize=(SIZE[0] + 0.3, SIZE[1] + 0.7))
    axis = figure.subplots()
    axis.set(xlim=(-0.02, SIZE[0] + 0.02), ylim=(-0.02, SIZE[1] + 0.02), aspect="equal")
    axis.axis("off")
    for arrow in ARROWS:
        _draw_arrow(axis, arrow)
    for box in BOXES:
        _draw_box(axis, box)
    caption(figure, SETTING)
    return figure


def _draw_box(axis, box):
    corner, pad = (box.left, box.bottom), 0.12
    shape = FancyBboxPatch(
        corner, box.width, box.height, "round,pad=0,rounding_size=0.1", facecolor="#f2f2f2"
    )
    axis.add_patch(shape)
    left, top = box.left + pad, box.bottom + box.height - pad
    axis.text(left, top, box.name, va="top", weight="bold")
    axis.text(left, top - 0.27, box.sees, va="top", fontsize=SMALL)
    at = left, box.bottom + pad
    axis.text(*at, box.never, va="bottom", fontsize=SMALL, color=MUTED, style="italic")


def _draw_arrow(axis, arrow):
    colour, dash = KINDS[arrow.kind]
    ends = [(arrow.start, arrow.end), (arrow.end, arrow.start)][: 2 if arrow.text == OPENED else 1]
    axis.plot(*zip(arrow.start, arrow.end, strict=True), dash, color=colour, marker="", **FLAT)
    for start, end in ends:  # the head is not dashed
        near = [e + 0.01 * (s - e) for s, e in zip(start, end, strict=True)]
        head = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 16, "shrinkB": 0}
        axis.annotate("", end, near, arrowprops=head)
    axis.text(*arrow.at, arrow.text, ha="center", va="center", fontsize=SMALL)


def main():
    """Draw them all."""
    write_whole(training.RESULTS / "parties.png", parties())
    print("written: results/parties.png")
    for path, draw in RECORDS.items():
        name = path.relative_to(training.REPOSITORY)
        if path.exists():
            write_whole(path.with_suffix(".png"), draw(json.loads(path.read_text())))
            print(f"written: {name.with_suffix('.png')}")
        else:
            print(f"not drawn: there is no {name}")


if __name__ == "__main__":
    main()
