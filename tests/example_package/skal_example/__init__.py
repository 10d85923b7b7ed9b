"""A package of its own with a strategy for skal."""

from skal.query import ScoreQuery


class VariationRatioQuery(ScoreQuery):
    """Take the rows with the largest ``1 - max_c p_c``.

    References
    ----------
    .. [1] Freeman, "Elementary Applied Statistics", 1965.
    """

    requires = ("proba",)

    def _score(self, pool):
        return 1 - pool.proba.amax(1)
