"""Which triples train, which choose the model, which test it.

`released` keeps the published files as they are. `clean` makes the three disjoint: repeated rows go, test rows that
train holds go, and so do dev rows that train or test holds. Where too little of dev is left, the rest goes as well and
a dev set is carved anew out of train (DB15K's is such a one: all but 80 of its rows stand in train or test). A graph
whose files share nothing, as MKG-W and MKG-Y, is the same under both.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.errors import UserError
from pipeline.graph.rows import distinct, within


def choose(
    splits: Mapping[str, np.ndarray], how: str, *, dev_share: float, seed: int, least_dev: float = 0.5
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The triples (n, 3) of train, dev and test, and counts of what was done to the released rows.

    `how` is "clean" or "released". A split that was not released (no test, or no dev) is carved out of train under
    both, `dev_share` of train each, by `seed`. Every entity and relation of train stays in train. Under "clean", a dev
    set that keeps less than `least_dev` of its rows, once those of train and test are gone, is replaced in this way.
    Raises UserError if nothing can be carved.
    """
    train, dev, test = splits["train"], splits["dev"], splits["test"]
    done = {"carved_dev": 0, "carved_test": 0}
    if how == "clean":
        train, dev, test = distinct(train), distinct(dev), distinct(test)
        for name, rows in (("train", train), ("dev", dev), ("test", test)):
            done[f"{name}_duplicates_dropped"] = len(splits[name]) - len(rows)
        known = within(test, train)
        done["test_in_train_dropped"] = int(known.sum())
        test = test[~known]
        shared = within(dev, train) | within(dev, test)
        replaced = bool(shared.any()) and (~shared).sum() < least_dev * len(dev)
        done["dev_in_train_or_test_dropped"] = int(shared.sum())
        done["leaking_dev_dropped"] = int((~shared).sum()) if replaced else 0
        dev = dev[:0] if replaced else dev[~shared]
    generator = np.random.default_rng(seed)
    if not len(test) or not len(dev):
        train = distinct(train)  # or one of two equal rows could be carved out, and the other stay
    if not len(test):
        train, test = carve(train, dev_share, generator, "test")
        done["carved_test"] = len(test)
    if not len(dev):
        train, dev = carve(train, dev_share, generator, "dev")
        done["carved_dev"] = len(dev)
    return {"train": train, "dev": dev, "test": test}, done


def carve(
    train: np.ndarray, share: float, generator: np.random.Generator, what: str = "dev"
) -> tuple[np.ndarray, np.ndarray]:
    """(what stays, what is carved out) of `train` (n, 3): `share` of the rows, drawn at random.

    A row may go only while each of its entities and its relation keep another row, so fewer rows than asked for may
    go. Raises UserError if none can.
    """
    wanted = round(share * len(train))
    heads, relations, tails = (train[:, column] for column in range(3))
    degree = np.bincount(heads, minlength=train[:, [0, 2]].max() + 1)
    degree += np.bincount(tails[heads != tails], minlength=len(degree))
    frequency = np.bincount(relations)
    out = np.zeros(len(train), dtype=bool)
    gone = 0
    for row in generator.permutation(len(train)).tolist():
        if gone >= wanted:
            break
        head, relation, tail = train[row]
        if degree[head] > 1 and degree[tail] > 1 and frequency[relation] > 1:
            out[row] = True
            gone += 1
            frequency[relation] -= 1
            degree[head] -= 1
            degree[tail] -= head != tail
    if not gone:
        why = (f"{share} of them are none; raise dev_share" if not wanted
               else "each is the last of an entity or of its relation; add triples")  # fmt: skip
        raise UserError(
            f"No {what} set can be carved out of {len(train):,} training triples: {why}, or give a {what} file."
        )
    return train[~out], train[out]
