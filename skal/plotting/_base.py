"""What displays share."""


class Display:
    """A picture that keeps its numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.
    """

    def _axes(self, ax=None, figsize=None):
        """Note the axes, and make some where none are given."""
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=figsize, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        return ax
