"""The attacks. Each is a function of one party's view, and of public knowledge, and nothing else.

What they look for is in PySyft 0.2.9's protocols by construction: one mask for all of a compared
tensor and one bit that hides all its signs (securenn.py, `msb`), triples that the orchestrator
makes and whose openings it adds up (spdz.py, primitives.py), and masks from a generator whose seed
the script tells. On `semi2k` the same function takes what comes nearest: the value that was opened
in that place, with whatever share of its mask the view holds.
"""

from collections import deque

import numpy as np

from smpc.audit.openings import TRUNCATIONS, follow, openings

PRODUCTS = ("mul", "matmul")
SEED_WORDS = 1 << 22  # of a seed's generator are searched: the first steps of a run draw fewer


def relu_inputs(view):
    """A worker's attack: the inputs of the first ReLU, up to one constant.

    Returns:
        uint64 (n,), whose differences mod 2^64 are `factor` times the true ones; and the factor.
    """
    if view.protocol == "snn":
        # opened: 2 * (2 a) + x, with one number x for the whole tensor
        between = view.arrays("value", name="ObjectMessage", sender="worker1", receiver="worker2")
        return _first(view, between), 4
    if view.protocol == "fss":
        opened = view.arrays("opened", name="syft.frameworks.torch.mpc.fss.evaluate")
        return -_first(view, opened), 1
    # its comparison has nothing opened but bits: the value is what its truncation opened (beside
    # that, in a private training, there are each item's norms)
    truncated = (o for o in openings(view) if o.op in TRUNCATIONS)
    first = next(o for o in truncated if len(o.value.shape) > 1)
    return first.masked.ravel(), first.params[1]


def _first(view, entries):
    return (
        view.value(next(e for e in entries if len(e.shape) and e.shape != (1,)))
        .ravel()
        .view(np.uint64)
    )


def signs(view):
    """The crypto provider's attack: the signs of the first ReLU's inputs, up to one flip.

    Returns:
        bool (n,), or None where the provider has received no value to make anything of.
    """
    received = [e for e in view.arrays("share") if e.receiver == view.party and len(e.shape) == 2]
    if not received:
        return None
    first = [view.value(e) for e in received if e.shape == received[0].shape][:2]
    return (sum(first) % 67 == 0).any(axis=1)  # private_compare's test, mod its prime


def product_inputs(view):
    """The orchestrator's attack: the inputs of products, opened under masks, unmasked.

    Under syft's protocols the view holds every triple. Under semi2k a worker's holds a share of
    each mask, and the orchestrator's, no masked value; so there the attack is a worker's, too.

    Returns:
        a list of (operation or None, uint64 array), in the order of the products.
    """
    if view.protocol == "semi2k":
        follower = follow(view)
        return [(None, x.delta + x.a) for x in follower.factors] if follower else []
    dealt, unmasked = {}, []
    for entry, arrays in view.messages_with_arrays(sender=view.roster.orchestrator):
        name, op = entry.name, entry.fields[1] if len(entry.fields) > 1 else None
        if name == "feed_crypto_primitive_store" and op in PRODUCTS:
            if entry.receiver == "worker1":
                first = arrays
            else:
                a, b, _ = (one[0] + other[0] for one, other in zip(first, arrays, strict=True))
                dealt.setdefault((op, a.shape, b.shape), deque()).append((a, b))
        elif name.endswith("spdz_compute") and entry.receiver == "worker1":
            _, *opened = arrays  # the first says which worker it is
            masks = dealt[op, opened[0].shape, opened[1].shape].popleft()
            unmasked += [(op, x.view(np.uint64)) for x in map(np.add, opened, masks)]
    return unmasked


def training_secrets(inputs, n_items):
    """Images (n_items, 784), labels (n_items,) and first weights (128, 784) from the inputs of a
    training step's products, as `product_inputs` gives them: the first of each shape.

    The labels are where output - target, which is squared, is least: the target is 1 there, and a
    new network's outputs are small.
    """
    images = next(x for _, x in inputs if x.size == n_items * 784 and len(x) == n_items)
    weights = next(x for _, x in inputs if sorted(x.shape) == [128, 784])
    errors = next(x for op, x in inputs if x.shape == (n_items, 10) and op != "matmul")
    weights = weights if weights.shape == (128, 784) else weights.T
    return images.reshape(n_items, 784), errors.view(np.int64).argmin(axis=1), weights


def generator(seed):
    """What torch draws after `torch.manual_seed(seed)`: the 64-bit draws from each of its 32-bit
    words on. uint64 (SEED_WORDS,). (Both it and numpy seed the Mersenne Twister as its authors do.)
    """
    words = np.random.RandomState(seed % 2**32).randint(0, 2**32, SEED_WORDS + 1, dtype=np.uint32)
    return words[:-1].astype(np.uint64) << np.uint64(32) | words[1:]


def seeded_draws(view, drawn):
    """Of the first words of all that the view was dealt or given or drew: how many the seeded
    generator drew, too, and how many were looked for. `drawn`: as `generator` gives it."""
    first = [view.value(entry).ravel()[:8] for entry in view.arrays("dealt", "share", "drawn")]
    words = np.concatenate([w.view(np.uint64) for w in first if w.dtype.itemsize == 8])
    words = np.unique(words[abs(words.view(np.int64)) > 2**32])  # a public number is no mask
    sought = np.sort(words + np.uint64(2**63))  # (np.unique and np.isin take seconds here)
    nearest = sought[np.minimum(np.searchsorted(sought, drawn), sought.size - 1)]
    return int((nearest == drawn).sum()), words.size


def images_by_seed(view, drawn, n_items):
    """A worker's attack, who knows the seed: the training images. uint64 (n_items, 784).

    One worker's share of the images is the mask itself, which the generator drew; the other's, and
    under semi2k what every worker has, is the images less that. Who holds the mask turns to the
    product that opens the images: of the triple, too, its shares are masks that the generator drew,
    right after the triple itself.
    """
    n = n_items * 784
    values = drawn - np.uint64(2**63)  # random_(-2^63, 2^63 - 1) and randint of the same bounds

    def draws(start):
        return values[start : start + 2 * n : 2]

    share = first_share(view).ravel().view(np.uint64)
    for start in np.flatnonzero(_small(share[0] + values)):
        if start + 2 * n <= values.size and _small(share + draws(start)).all():
            return (share + draws(start)).reshape(n_items, 784)
    for (a, b, _), (delta, _) in zip(_triples(view), _opened_products(view), strict=False):
        for position in np.flatnonzero(values == a.view(np.uint64).flat[0]) if a.size == n else ():
            mask = draws(position - 2 * (a.size + b.size))
            return (delta.ravel().view(np.uint64) + mask).reshape(n_items, 784)
    return (share + draws(2)).reshape(n_items, 784)  # where syft's own would be


def first_share(view):
    """What a worker was sent of the first value that was shared."""
    if view.protocol == "semi2k":  # on hosts, what owners share may come in any order
        return min((o for o in openings(view) if o.op == "input"), key=lambda o: o.number).value
    return view.value(view.arrays("share")[0])


def _small(words):
    return words + np.uint64(2**20) <= np.uint64(2**21)


def _triples(view):
    """A worker's shares of triples, in the order they came: lists of three arrays."""
    for entry, arrays in view.messages_with_arrays(receiver=view.party):
        if entry.name == "feed_crypto_primitive_store" and entry.fields[1] in PRODUCTS:
            yield [array[0] for array in arrays]


def _opened_products(view):
    for entry, arrays in view.messages_with_arrays(receiver=view.party):
        if entry.name.endswith("spdz_compute"):
            yield arrays[1:]
