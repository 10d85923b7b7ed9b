"""What displays share."""


def make_axes(ax=None, figsize=None):
    """Make axes where none are given.

    Parameters
    ----------
    ax : matplotlib Axes, default=None
        Returned as they are.
    figsize : tuple of float, default=None
        Width and height of a new figure, in inches.

    Returns
    -------
    ax : matplotlib Axes
    """
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=figsize, layout="constrained")[1]
