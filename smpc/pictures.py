"""How all pictures of this project look: in print, in grey, to the colour-blind, on a dark page.

What is told apart has a marker, a dash or a hatch of its own besides its colour, and its name where
it stands. The background is white and opaque, with a margin, so that a page in dark colours changes
nothing. The same record gives the same bytes.
"""

import functools
import io
import math
import textwrap
from collections.abc import Callable

from matplotlib import cycler
from matplotlib.figure import Figure
from matplotlib.style import context

# Of Okabe and Ito, Color Universal Design (2008), those whose lightness differs most.
BLUE, ORANGE, GREEN, PURPLE, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
INK, MUTED, GRID = "#000000", "#595959", "#d9d9d9"  # MUTED has 7:1 to white, as small text needs
SMALL, MARGIN = 9, 0.12  # points; inches around and between what is drawn
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.framealpha": 1,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, INK])
    + cycler(marker=["o", "s", "^", "D"])
    + cycler(linestyle=["-", "--", "-.", ":"]),
    "lines.markersize": 5,
    "patch.force_edgecolor": True,  # a bar and its hatch are drawn in ink, its colour between
    "patch.edgecolor": INK,
    "patch.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": MARGIN,
    "figure.constrained_layout.h_pad": MARGIN,
    "savefig.dpi": 150,
}


def as_png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Make of a function that returns a figure one that returns it as a PNG, drawn in this style
    whatever the user's own is."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        png = io.BytesIO()
        with context(STYLE, after_reset=True):
            figure = draw(*args, **kwargs)
            figure.savefig(png, format="png", metadata={"Software": None})  # it has a version
        return png.getvalue()

    return drawn


def caption(figure: Figure, text: str):
    """Put a line or two below a figure, such as the machine that the seconds are of."""
    lines = math.ceil(len(text) / (15 * figure.get_figwidth()))  # so many letters an inch
    text = textwrap.fill(text, len(text) // lines + 10)
    figure.supxlabel(text, fontsize=SMALL - 1, color=MUTED)
