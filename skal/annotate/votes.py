"""What several people's answers come to."""

from itertools import combinations

import numpy as np
import pandas as pd


def majority(answers):
    """Find the label that most annotators gave to each item.

    Parameters
    ----------
    answers : DataFrame
        With the columns item and label, one row for each annotator of an item; a skip
        has the label None and no vote.

    Returns
    -------
    labels : Series of str
        By item; items whose most frequent labels are a tie are not in it.
    tied : Index
        These items.
    """
    votes = answers.dropna(subset="label").groupby(["item", "label"]).size()
    votes = votes.rename("n").reset_index()
    leading = votes[votes["n"] == votes.groupby("item")["n"].transform("max")]
    tie = leading.duplicated("item", keep=False)
    labels = leading[~tie].set_index("item")["label"]
    return labels, pd.Index(leading.loc[tie, "item"].unique())


def agreement(answers):
    """Compare the annotators in pairs.

    Parameters
    ----------
    answers : DataFrame
        With the columns item, label and annotator.

    Returns
    -------
    pairs : DataFrame
        A row for each two annotators who labelled the same items: first, second,
        n_items, agreement (share of equal labels) and kappa, Cohen's, which is 0 for
        what chance would give, and NaN where both gave one label throughout.
    """
    from sklearn.metrics import cohen_kappa_score  # slow to load

    answers = answers.dropna(subset="label")
    table = answers.pivot(index="item", columns="annotator", values="label")
    rows = []
    for first, second in combinations(table, 2):
        both = table[[first, second]].dropna()
        if len(both):
            a, b = both[first].to_numpy(), both[second].to_numpy()
            varied = len({*a, *b}) > 1
            kappa = cohen_kappa_score(a, b) if varied else np.nan
            rows.append((first, second, len(both), float((a == b).mean()), kappa))
    columns = ["first", "second", "n_items", "agreement", "kappa"]
    return pd.DataFrame(rows, columns=columns)
