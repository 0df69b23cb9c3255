"""The audit's table, its record and its picture."""

import numpy as np
from matplotlib.figure import Figure

from smpc.audit.chance import LEVEL
from smpc.audit.transcript import ORCHESTRATOR
from smpc.pictures import INK, MUTED, SMALL, as_png

DIGITS, TILE, GAP = 6, 28, 3  # items in a strip of the picture; pixels of each, and between them
GRAY = {"cmap": "gray", "vmin": 0, "vmax": 1}
GIVEN_AWAY = {"color": INK, "weight": "bold"}  # how it is said what a view gives
HIDDEN = {"color": MUTED, "weight": "normal"}
NAMES = {
    ORCHESTRATOR: "orchestrator",
    "worker1": "worker1",
    "worker2": "worker2",
    "crypto_provider": "crypto provider",
}
UNITS = {"images": "pixels ", "labels": "", "weights": "", "signs": ""}
# The picture's lines: whose view, and the secret that is looked for in it first; None: the truth.
LINES = (
    ("what was shared", None, "images"),
    ("orchestrator", ORCHESTRATOR, "images"),
    ("worker2, who knows the seed", "worker2", "images"),
    ("the first hidden values", None, "hidden values"),
    ("worker1", "worker1", "hidden values"),
    ("worker2", "worker2", "hidden values"),
    ("crypto provider", "crypto_provider", "signs"),
)


def saw(view):
    """What a party received, and what it drew: counts and bytes, as a dict."""
    received = {"messages": 0, "bytes": 0, "arrays": {}}
    drawn = {"arrays": 0, "bytes": 0}
    for entry in view.entries:
        if entry.kind == "drawn":
            drawn["arrays"] += 1
            drawn["bytes"] += entry.bytes
        elif entry.receiver == view.party and entry.kind == "message":
            received["messages"] += 1
            received["bytes"] += entry.bytes
        elif entry.receiver == view.party:
            of_kind = received["arrays"].setdefault(entry.kind, {"arrays": 0, "bytes": 0})
            of_kind["arrays"] += 1
            of_kind["bytes"] += entry.bytes
    return {"received": received, "drawn": drawn}


def run_of(view):
    """What the table calls the run of which it is."""
    return f"{view.protocol}, private" if view.is_private else view.protocol


def recovered(result):
    """How much of its secret an attack got, in words."""
    if result.guess is None:
        return f"{result.secret}: no value received"
    if result.secret == "hidden values":
        return f"{result.secret}: correlation {result.recovered:.3f}"
    right = round(result.recovered * result.items)
    return f"{result.secret}: {right:,} of {result.items:,} {UNITS[result.secret]}right"


def table(rows):
    """(view, results of its attacks) pairs -> a table in Markdown."""
    columns = "protocol", "party", "received", "drew", "best attack", "recovered"
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for view, results in rows:
        seen = saw(view)
        received = seen["received"]
        kinds = [f"{kind} {_size(of['bytes'])}" for kind, of in received["arrays"].items()]
        best = [result for result in results if result.succeeded] or results
        cells = [
            *(run_of(view), NAMES.get(view.party, view.party)),
            f"{received['messages']:,} messages: {', '.join(kinds) or 'no value'}",
            _size(seen["drawn"]["bytes"]),
            "; ".join(dict.fromkeys(result.attack for result in best)),
            ("" if best[0].succeeded else "not recovered; ")
            + "; ".join(dict.fromkeys(map(recovered, best))),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_json(audit):
    """The same of an `Audit`, and the tests' outcome, for JSON."""
    rows, tests = audit.rows, audit.tests
    return {
        "rows": [
            {"protocol": run_of(view), "party": view.party, "saw": saw(view)}
            | {
                "attacks": [
                    {
                        "attack": result.attack,
                        "secret": result.secret,
                        "items": result.items,
                        "recovered": round(float(result.recovered), 6),
                        "succeeded": bool(result.succeeded),
                    }
                    | ({"luck": float(result.luck.min())} if view.protocol == "semi2k" else {})
                    for result in results
                ]
            }
            for view, results in rows
        ],
        "semi2k": {
            "level": LEVEL,
            "probabilities": tests.count,
            "least": tests.least,
            "alarm_below": tests.alarm_below,
            "simulated": [
                {
                    "protocol": result.protocol,
                    "party": result.party,
                    "method": result.method,
                    "compared": result.compared,
                    "passed": bool(result.passed),
                }
                for result in audit.simulated
            ],
        },
        "findings": [[*finding] for finding in audit.findings],
    }


def _size(n_bytes):
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes:,} B"


def listing(view):
    """A party's view as text, a line for each array, as it came."""
    form = "{:>7}  {:<15}  {:<15}  {:<8}  {:>11}  {:>14}  {}".format
    lines = [form("round", "sender", "receiver", "kind", "bytes", "shape", "name")]
    for entry in view.arrays():
        shape = "x".join(map(str, entry.shape)) or "scalar"
        ends = entry.round, entry.sender, entry.receiver
        lines.append(form(*ends, entry.kind, f"{entry.bytes:,}", shape, entry.name))
    seen = saw(view)
    received, drawn = seen["received"], seen["drawn"]["bytes"]
    return "\n".join(lines) + (
        f"\n\n{view.party} received {received['messages']:,} messages, {received['bytes']:,} bytes "
        f"in all, and drew {drawn:,} bytes."
    )


# ---- The picture ---------------------------------------------------------------------------------


@as_png
def picture(truth, rows):
    """The digits that were shared, and under them what each party's view gives of them.

    Args:
        truth: the `checks.Truth` of the runs, all of which shared the same items.
        rows: as for `table`; of private trainings none is drawn.
    Returns:
        the bytes of a PNG.
    """
    found = {
        (view.protocol, view.party, result.secret): result
        for view, results in rows
        for result in reversed(results)
        if not view.is_private
    }
    protocols = list(dict.fromkeys(protocol for protocol, *_ in found))
    figure = Figure(figsize=(11, 0.92 * len(LINES)))
    axes = figure.subplots(len(LINES), len(protocols), squeeze=False)
    for axis, (label, party, _) in zip(axes[:, 0], LINES, strict=True):
        weight = "bold" if party is None else "normal"
        place = {"transform": axis.transAxes, "ha": "right", "va": "center"}
        axis.text(-0.04, 0.5, label, weight=weight, **place)
    for column, protocol in zip(axes.T, protocols, strict=True):
        column[0].set_title(protocol, fontsize=13)
        for axis, (_, party, secret) in zip(column, LINES, strict=True):
            axis.set_axis_off()
            if party is None:
                true = truth.images if secret == "images" else truth.hidden
                axis.imshow(_strip(secret, true), **GRAY)
            else:
                _show(axis, found[protocol, party, secret])
    return figure


def _show(axis, result):
    """One cell: the first items as the attack has them, and how much of all is right."""
    if result.guess is None:
        axis.imshow(np.ones((TILE, (TILE + GAP) * DIGITS - GAP)), **GRAY)
        place = {"transform": axis.transAxes, "ha": "center", "va": "center"}
        axis.text(0.5, 0.5, "has received no value", **HIDDEN, **place)
        return
    axis.imshow(_strip(result.secret, result.guess), **GRAY)
    said = GIVEN_AWAY if result.succeeded else HIDDEN
    axis.set_title(recovered(result), fontsize=SMALL, pad=3, **said)


def _strip(secret, values):
    """The first DIGITS items side by side, as brightness from 0 to 1."""
    if secret == "images":
        tiles = _brightness(values[:DIGITS].view(np.int64)).reshape(-1, 28, 28)
    else:  # 128 hidden values of each item, 8 rows of 16
        values = values[: DIGITS * 128]
        if secret == "hidden values":
            values = _brightness((values - values[0]).view(np.int64))
        rows, columns = np.arange(TILE) * 8 // TILE, np.arange(TILE) * 16 // TILE
        tiles = values.reshape(-1, 8, 16)[:, rows][:, :, columns].astype(float)
    gap = np.ones((TILE, GAP))
    return np.hstack([part for tile in tiles for part in (tile, gap)][:-1])


def _brightness(values):
    least, most = np.percentile(values, (0.5, 99.5))
    return np.clip((values - least) / (most - least), 0, 1)
