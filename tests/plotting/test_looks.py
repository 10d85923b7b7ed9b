from itertools import combinations

import numpy as np
import pytest

from skal.plotting import limits, looks, score_range, ticks

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
EYES = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "all cones": np.eye(3),
}


def oklab(color, eye):
    """Place a colour, as an eye sees it, where distances are those seen."""
    values = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    linear = np.clip(EYES[eye] @ linear, 0, 1)
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return axes @ np.cbrt(cones @ linear)


@pytest.mark.parametrize("eye", EYES)
def test_colours_differ_in_every_eye(eye):
    colors = [look.color for look in looks("abcdef").values()]
    places = [oklab(color, eye) for color in colors]
    # Just noticed is 0.02; matplotlib's red and green are 0.03 apart in deuteranopia.
    for n, least in ((4, 0.13), (6, 0.07)):
        gaps = [np.linalg.norm(a - b) for a, b in combinations(places[:n], 2)]
        assert min(gaps) > least


def test_thirty_strategies_look_different_without_colour_or_without_dash():
    names = [f"s{k}" for k in range(30)]
    found = looks(["random", *names])
    assert found["random"] == looks(names + ["random"])["random"]
    assert found["random"].color is None and found["random"].marker == ""
    own = [found[name] for name in names]
    assert len({(look.color, look.dashes) for look in own}) == 30
    assert len({(look.color, look.marker) for look in own}) == 30
    for first, second in zip(own, own[1:], strict=False):
        assert first.dashes != second.dashes and first.marker != second.marker
    assert found["random"].dashes not in [look.dashes for look in own]


@pytest.mark.parametrize("name", "accuracy test_f1_macro class_balance".split())
def test_shares_stay_between_0_and_1(name):
    assert score_range(name) == (0, 1)


def test_other_scores_go_where_they_like():
    assert score_range("nll") == (0, np.inf)
    assert score_range("test_neg_log_loss") == (-np.inf, np.inf)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (-0.5, 0.5, [-0.4, -0.2, 0, 0.2, 0.4]),
        (10, 230, [50, 100, 150, 200]),
        (0.991, 0.9985, [0.992, 0.994, 0.996, 0.998]),
    ],
)
def test_ticks(low, high, expected):
    np.testing.assert_allclose(ticks(low, high), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.3, 0, 20])
def test_limits_of_one_value(value):
    assert limits([value]) == (value - 0.5, value + 0.5)
