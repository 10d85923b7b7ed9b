"""What became of the items: new, moved, changed, vanished and broken ones."""

from skal.experiment.options import UsageError


def look_through(store, source):
    """Bring the items of a store in line with what the source has now.

    Parameters
    ----------
    store : LabelStore
    source : ImageSource or RowSource

    Returns
    -------
    found : dict of str to list of str
        "new", "moved" ("old -> new"), "gone" and "broken" ("name: reason").

    Raises
    ------
    UsageError
        Where none of the items is there any more.
    """
    items = store.items()
    here = items[items["state"] != "gone"]
    known = zip(here["stamp"], here["content"], strict=True)
    known = dict(zip(here["item"], known, strict=True))
    listing = source.listing(known)
    changes, new = reconcile(items, listing, rows=source.kind != "images")
    gone = [n for n, change in changes.items() if change.get("state") == "gone"]
    if gone and len(gone) == len(here):
        raise UsageError(
            f"{source.path} has none of the {len(gone)} items any more: is the disk "
            "there, was the file replaced, or were its columns changed? Bring the "
            "items back, or make a new project with --project."
        )
    names = items["item"].to_dict()
    looked_at, moved = [listing.names[place] for place in new], []
    for number, change in changes.items():
        if change.get("state") != "gone":
            looked_at.append(change.get("item", names[number]))
        if "item" in change:
            moved.append(f"{names[number]} -> {change['item']}")
    if changes:
        store.update_items(changes)
    if new:
        store.add_items(*([part[place] for place in new] for part in listing))
    faults = source.faults(looked_at)
    mark_broken(store, faults)
    return {
        "new": [listing.names[place] for place in new],
        "moved": moved,
        "gone": [names[number] for number in gone],
        "broken": [f"{name}: {fault}" for name, fault in faults.items()],
    }


def mark_broken(store, faults):
    """Pass over items that cannot be read, until they change.

    Parameters
    ----------
    store : LabelStore
    faults : dict of str to str
        Reasons by name.
    """
    if faults:
        reasons = zip(store.numbers(faults), faults.values(), strict=True)
        store.update_items(
            {number: {"state": "broken", "reason": why} for number, why in reasons}
        )


def reconcile(items, listing, rows):
    """Compare what is known with what is there.

    Parameters
    ----------
    items : DataFrame
        As of `LabelStore.items`.
    listing : Listing
    rows : bool
        A row with another content is another item; a file is the same, changed.

    Returns
    -------
    changes : dict
        As for `LabelStore.update_items`.
    new : list of int
        Positions in the listing of items that are not known.
    """
    changes, places = {}, {name: place for place, name in enumerate(listing.names)}
    here = items[items["state"] != "gone"]
    free = set(places.values())
    left = {}
    for number, item in zip(here.index.tolist(), here.itertuples(), strict=True):
        place = places.get(item.item)
        if place is not None and listing.contents[place] == item.content:
            free.discard(place)
            if listing.stamps[place] != item.stamp:
                changes[number] = _at(listing, place, item)
        else:
            left[number] = item
    by_content = {}
    for place in sorted(free, reverse=True):
        by_content.setdefault(listing.contents[place], []).append(place)
    gone = items[items["state"] == "gone"]
    lost = dict(zip(gone.index.tolist(), gone.itertuples(), strict=True))
    for number, item in [*left.items(), *lost.items()]:
        if by_content.get(item.content):
            place = by_content[item.content].pop()
            free.discard(place)
            left.pop(number, None)
            changes[number] = _at(listing, place, item)
    for number, item in left.items():
        place = places.get(item.item)
        if place in free and not rows:
            free.discard(place)
            changes[number] = _at(listing, place, item)
        else:
            changes[number] = {"state": "gone"}
    return changes, sorted(free)


def _at(listing, place, item):
    """Say what is new of an item that is at a place of the listing."""
    change = {
        name: part[place]
        for name, part in zip(("item", "content", "stamp"), listing, strict=True)
        if part[place] != getattr(item, name)
    }
    return {**change, "state": ""} if item.state else change
