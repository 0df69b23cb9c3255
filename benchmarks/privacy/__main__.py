"""Attacks on what a model tells: the tutorial's and private ones, and broken variants of these.

    make privacy-audit   # some eight minutes; prints a table, writes results/privacy.json and .png

Above in the table: what part of the training items in doubt a likelihood-ratio attack finds, which
sees only the final model, and its 95% interval. Below: the ε that canaries prove with a confidence
of 95%, to an attacker who sees each step's noisy sum, as the guarantee allows; it has to stay below
the ε accounted for, and, where the privacy is broken, to rise above it. The status is 1 if any is
on the wrong side.

All is trained by the plain twin, in float32 with one thread. The private models here have fewer
items than `make private` has, or there would be no time for so many; ε is that of these very runs,
12 epochs with the noise that goes with them.
"""

import math
import sys
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import train_encrypted as script
from benchmarks.privacy import bound, canaries, membership
from benchmarks.training import REPOSITORY, RESULTS, keep
from smpc import mnist
from smpc.pictures import BLUE, GREEN, INK, MUTED, SMALL, VERMILLION, as_png
from smpc.privacy import twin
from smpc.privacy.accounting import guarantee
from smpc.semi2k.compiler import LEAST_SIGMA

DELTA, EPOCHS, BATCH, CLIP, MOMENTUM = 1e-5, 12, 1000, 8.0, 0.9
RATES = {8: 0.02, 2: 0.01}  # learning rate at an accounted ε
ITEMS, CANARY_ITEMS = 6_000, 15_000  # of MNIST's first, in the private models of the two attacks
IN_DOUBT = 1_280  # items whose membership is attacked: half of them are in each model
TUTORIAL_MODELS, PRIVATE_MODELS = 128, 64
PER_BATCH, PER_BATCH_OF_LOSS = 68, 8  # canaries
FEW = 8  # models whose test items are counted
DIGITS = 3  # decimals of a loss as the script reveals it
FALSE_POSITIVES = (0.001, 0.01)
WIDTH = 34  # of the table's first column
ACCOUNTED = {"color": INK, "linestyle": "-", "linewidth": 2.5}  # the line at an ε
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
# By ε, or None if not private: colour and dash, and where its curve is named: at so many false
# positives, and so many points from there.
LOOKS = {
    None: (VERMILLION, "-", 2e-2, (-8, 4), "right"),
    8: (BLUE, "--", 1e-3, (-8, 2), "right"),
    2: (GREEN, "-.", 3e-2, (10, -10), "left"),
}


class Variant(NamedTuple):
    """A private training as it should be, or broken: a part of the noise, no clipping, or the loss
    of each batch revealed and attacked."""

    name: str
    epsilon: int
    noise: float = 1
    clipped: bool = True
    loss: bool = False

    @property
    def broken(self):
        """Whether the ε accounted for does not hold."""
        return self.noise < 1 or not self.clipped or self.loss


VARIANTS = (
    Variant("private", 8),
    Variant("private", 2),
    Variant("no noise", 2, noise=0),
    Variant("a tenth of the noise", 2, noise=0.1),
    Variant("no clipping", 2, clipped=False),
    Variant("each batch's loss revealed", 2, loss=True),
)


def items_of(n_items, train=True):
    """The first training or test items: images (N, 784) and one-hot targets (N, 10)."""
    which = "train" if train else "test"
    arguments = f"--n-{which}-items {n_items} --{'' if train else 'test-'}batch-size {n_items}"
    args = script.parse_arguments([*arguments.split(), "--data-dir", str(REPOSITORY / "data")])
    ((data, target),) = script.get_data_loader(args, train)
    return data.flatten(1), script.one_hot_of(target)


def new_model():
    """The tutorial's network."""
    return script.Net(script.ACTIVATIONS["relu"])


def new_models(n_models):
    """The layers of so many of them, each with weights of its own."""
    return twin.stacked([new_model() for _ in range(n_models)])


def private(epsilon, n_items):
    """The schedule of a private training here, and its mechanism."""
    steps = math.ceil(n_items / BATCH)
    coordinates = sum(parameter.numel() for parameter in new_model().parameters())
    promised = guarantee(epsilon, DELTA, EPOCHS, 2, CLIP, steps, coordinates, LEAST_SIGMA)
    schedule = twin.Schedule(EPOCHS, BATCH, [RATES[epsilon]], MOMENTUM)
    return schedule, twin.Mechanism(CLIP, promised.sigma, correlation=promised.correlation)


# ---- The attack on membership --------------------------------------------------------------------


def attack_members(epsilon, data, target, test_items):
    """Train models, of the tutorial if ε is None, and attack each by all others.

    Returns:
        a dict: what it rests on, the part of test items that the models get right, a
        `membership.Rate` for each of FALSE_POSITIVES, and the curve.
    """
    generator = twin.from_system_randomness()
    if epsilon is None:
        # half of each batch of 128 is in, so that the mean is over 64, at twice the tutorial's rate
        n_models, n_items = TUTORIAL_MODELS, IN_DOUBT
        schedule, mechanism = twin.Schedule(10, 128, [0.04]), twin.Mechanism(None, 0)
    else:
        n_models, n_items = PRIVATE_MODELS, ITEMS
        schedule, mechanism = private(epsilon, n_items)
    data, target = data[:n_items], target[:n_items]
    included = membership.halves(n_models, IN_DOUBT, n_items, schedule.batch_size, generator)
    layers = new_models(n_models)
    for _ in twin.train_in_the_clear(
        layers, data, target, schedule, mechanism, generator, included=included
    ):
        pass
    said = membership.said_of(layers, data[:IN_DOUBT], target[:IN_DOUBT]).numpy()
    members = included[:, :IN_DOUBT].numpy()
    scores = membership.likelihood_ratios(said, members)
    falsely, truly = membership.curve(scores, members)
    places = np.unique(np.searchsorted(falsely, np.logspace(-4, 0, 200)).clip(0, falsely.size - 1))
    return {
        "epsilon": epsilon,
        "models": n_models,
        "items": IN_DOUBT,
        "trained_on": n_items - IN_DOUBT // 2,
        "right": right_of(layers, *test_items),
        "rates": [membership.rate_at(f, scores, members)._asdict() for f in FALSE_POSITIVES],
        "curve": [falsely[places].tolist(), truly[places].tolist()],
    }


def right_of(layers, data, target):
    """The part of test items that the first models get right, of so few for the time it takes."""
    outputs = twin.outputs([weights[:FEW] for weights in layers], data)
    return (outputs.argmax(2) == target.argmax(1)).double().mean().item()


def line_of_members(found):
    """Its line in the table."""
    name = "private, ε = {}".format(found["epsilon"])
    if found["epsilon"] is None:
        name = "the tutorial's, not private"
    rates = [
        "{true_positives:.2%} ({low:.2%} to {high:.2%})".format(**rate) for rate in found["rates"]
    ]
    return (
        f"  {name:<{WIDTH}}{found['models']:>6}{found['items']:>8,}"
        f"{found['trained_on']:>12,}{found['right']:>9.1%}"
        + "".join(f"{rate:>26}" for rate in rates)
    )


# ---- The attack on the mechanism -----------------------------------------------------------------


def prove(variant, data, target):
    """Train one model with canaries, as the variant says: the `bound.Shown` of it."""
    generator = twin.from_system_randomness()
    schedule, mechanism = private(variant.epsilon, len(data))
    mechanism = mechanism._replace(
        clip=CLIP if variant.clipped else None, noise=variant.noise * mechanism.noise
    )
    per_batch = PER_BATCH_OF_LOSS if variant.loss else PER_BATCH
    planted = canaries.planted(data, target, BATCH, per_batch, generator)
    scores, included = canaries.attack(
        new_models(1), planted, schedule, mechanism, generator, DIGITS if variant.loss else None
    )
    return bound.shown(scores, included, DELTA)


def attack_mechanism(variant, data, target):
    """What is shown of a variant, and whether it is on the right side of its ε, as a dict."""
    shown = prove(variant, data, target)
    return {
        "variant": variant.name,
        "accounted": variant.epsilon,
        "broken": variant.broken,
        "shown": shown._asdict(),
        "right_side": (shown.epsilon > variant.epsilon) == variant.broken,
    }


def line_of_mechanism(found):
    """Its line in the table."""
    shown, accounted = found["shown"], found["accounted"]
    name = f"{found['variant']}, ε = {accounted}"
    sign = ">" if shown["epsilon"] > accounted else "<"
    guesses = f"{shown['right']:,} of {shown['guesses']:,}"
    return (
        f"  {name:<{WIDTH}}{shown['canaries']:>8,}{guesses:>16}{shown['epsilon']:>10.2f} {sign} "
        f"{accounted}" + ("" if found["right_side"] else "  WRONG")
    )


# ---- Figure and run ------------------------------------------------------------------------------


@as_png
def picture(record):
    """The curves of the attack on membership and the bars of ε, as a PNG; `record`: that of
    results/privacy.json."""
    figure = Figure(figsize=(10, 4.2))
    curves, bars = figure.subplots(1, 2, width_ratios=(1, 1.1))
    for found in record["members"]:
        _draw_curve(curves, found)
    curves.loglog([1e-4, 1], [1e-4, 1], ":", color=MUTED, marker="")
    curves.annotate("guessing", (2e-3, 2e-3), (10, -10), textcoords="offset points", fontsize=SMALL)
    ticks = [10**-exponent for exponent in range(5)]
    curves.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    curves.set_yticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    curves.minorticks_off()
    curves.set(xlabel="false alarms", ylabel="members found", xlim=(1e-4, 1), ylim=(1e-4, 1))
    mechanisms = record["mechanisms"]
    for place, found in enumerate(mechanisms):
        shown, hatch = found["shown"]["epsilon"], "///" if found["broken"] else ""
        colour = LOOKS[None if found["broken"] else found["accounted"]][0]
        bars.barh(place, shown, 0.6, color=colour, hatch=hatch)
        bars.text(shown + 0.1, place, f"{shown:.2f}", va="center", fontsize=SMALL, bbox=WHITE)
        bars.vlines(found["accounted"], place - 0.4, place + 0.4, **ACCOUNTED)
    names = [f"{found['variant']}, ε = {found['accounted']}" for found in mechanisms]
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.set(xlabel="ε that canaries prove (95% confidence)", xlim=(0, 8.5))
    bars.grid(visible=False, axis="y")
    broken = Patch(facecolor=VERMILLION, hatch="///", label="broken on purpose")
    accounted = Line2D([], [], marker="", label="ε accounted for", **ACCOUNTED)
    bars.legend(handles=[accounted, broken], loc="lower right")
    return figure


def _draw_curve(axis, found):
    epsilon, (falsely, truly) = found["epsilon"], found["curve"]
    colour, dash, at, offset, side = LOOKS[epsilon]
    name = "the tutorial's, not private" if epsilon is None else f"ε = {epsilon}"
    axis.loglog(falsely, truly, dash, color=colour, marker="")
    point = at, np.interp(at, falsely, truly)
    axis.annotate(name, point, offset, textcoords="offset points", ha=side, fontsize=SMALL)


def main():
    """Attack, print the table, write the record and the figure; the exit status."""
    torch.set_num_threads(1)
    mnist.prepare(REPOSITORY / "data")
    data, target = items_of(CANARY_ITEMS)
    test_items = items_of(mnist.N_TEST, train=False)
    at = "".join(f"{f'found at {f:.1%} false':>26}" for f in FALSE_POSITIVES)
    print(
        f"{'Members, from the final model':<{WIDTH + 2}}models   items  trained on    right{at}",
        flush=True,
    )
    members = []
    for epsilon in (None, 8, 2):
        members.append(attack_members(epsilon, data, target, test_items))
        print(line_of_members(members[-1]), flush=True)
    print(
        f"\n{'Canaries, from every step':<{WIDTH + 2}}canaries   guesses right   ε shown",
        flush=True,
    )
    mechanisms = []
    for variant in VARIANTS:
        mechanisms.append(attack_mechanism(variant, data, target))
        print(line_of_mechanism(mechanisms[-1]), flush=True)
    record = {
        "setting": {
            "delta": DELTA,
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "clip": CLIP,
            "momentum": MOMENTUM,
            "rates": RATES,
            "items": ITEMS,
            "items_with_canaries": CANARY_ITEMS,
            "confidence": 1 - bound.LEVEL,
        },
        "members": members,
        "mechanisms": mechanisms,
    }
    keep(RESULTS / "privacy.json", record, picture)
    return 0 if all(found["right_side"] for found in mechanisms) else 1


if __name__ == "__main__":
    sys.exit(main())
