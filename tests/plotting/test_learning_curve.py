import numpy as np
import pytest

from skal.plotting import LearningCurveDisplay, looks

figure = pytest.importorskip("matplotlib.figure")


def records(strategy, seed, scores):
    return [
        {"strategy": strategy, "seed": seed, "n_labeled": 10 * i, "accuracy": score}
        for i, score in enumerate(scores, start=1)
    ]


def test_numbers_are_those_drawn():
    rows = [
        *records("badge", 1, [0.4, 0.8]),
        *records("badge", 0, [0.2, 0.6]),
        *records("random", 0, [0.1, 0.5]),
    ]
    ax = figure.Figure().subplots()
    display = LearningCurveDisplay.from_records(rows[::-1], ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    np.testing.assert_array_equal(display.curves["badge"][1], [[0.2, 0.6], [0.4, 0.8]])
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["badge"], [[10, 0.3], [20, 0.7]])
    np.testing.assert_allclose(lines["random"], [[10, 0.1], [20, 0.5]])


def test_runs_of_other_lengths_are_refused():
    rows = records("badge", 0, [0.1]) + records("badge", 1, [0.1, 0.2])
    with pytest.raises(ValueError, match="'badge' differ in their numbers of labels"):
        LearningCurveDisplay.from_records(rows, ax=figure.Figure().subplots())


def test_intervals_and_frame():
    curves = {"badge": ([20, 40], [[0.7, 0.9], [0.8, 0.9], [0.9, 0.9]])}
    display = LearningCurveDisplay(curves)
    low, high = display.interval("badge")
    # t(0.975, 2) = 4.3027; the deviation is 0.1.
    np.testing.assert_allclose(high - low, [2 * 4.3027 * 0.1 / 3**0.5, 0], atol=1e-4)
    frame = display.frame()
    columns = "strategy n_labeled mean low high n_runs gain gain_low gain_high n_pairs"
    assert list(frame) == columns.split()
    assert frame["n_runs"].tolist() == [3, 3] and frame["n_pairs"].tolist() == [0, 0]
    assert frame[["gain", "gain_low", "gain_high"]].isna().all(axis=None)
    np.testing.assert_allclose(frame["mean"], [0.8, 0.9])


def paired():
    """Seeds differ by far more than the strategies; badge has a seed of its own."""
    curves = {
        "badge": ([10, 20], [[0.2, 0.5], [0.6, 0.9], [0.1, 0.1]]),
        "random": ([10, 20], [[0.6, 0.86], [0.2, 0.48]]),
    }
    return LearningCurveDisplay(curves, seeds={"badge": [0, 1, 7], "random": [1, 0]})


def test_gains_are_paired_by_seed():
    gain = paired().gain("badge")
    np.testing.assert_array_equal(gain.n_labeled, [10, 20])
    np.testing.assert_allclose(gain.mean, [0, 0.03], atol=1e-12)
    # Of 0.02 and 0.04: t(0.975, 1) = 12.706 times 0.01.
    np.testing.assert_allclose(gain.high - gain.mean, [0, 0.12706], atol=1e-5)
    np.testing.assert_allclose(gain.mean - gain.low, gain.high - gain.mean)
    assert gain.n_pairs == 2
    pytest.importorskip("pandas")
    frame = paired().frame().set_index(["strategy", "n_labeled"])
    assert frame.loc[("badge", 20), "gain"] == pytest.approx(0.03)
    assert frame.loc[("badge", 20), "n_pairs"] == 2
    assert frame.loc[("random", 20), "gain"] == 0


def test_gains_are_at_the_labels_that_both_have():
    curves = {
        "a": ([10, 30], [[0.1, 0.7]]),
        "random": ([10, 20, 30], [[0.1, 0.4, 0.6]]),
    }
    gain = LearningCurveDisplay(curves).gain("a")
    np.testing.assert_array_equal(gain.n_labeled, [10, 30])
    np.testing.assert_allclose(gain.mean, [0, 0.1], atol=1e-12)
    assert np.isnan(gain.low).all()


def test_gains_are_drawn():
    ax = figure.Figure().subplots()
    paired().plot(ax, gain=True)
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["badge"], [[10, 0], [20, 0.03]], atol=1e-12)
    np.testing.assert_allclose(lines["random"], [[10, 0], [20, 0]])
    assert ax.get_ylabel() == "accuracy minus random's"


def test_random_is_always_drawn():
    rows = [row for name in ("b", "a", "random") for row in records(name, 0, [0.1])]
    for chosen in (["a"], [], ["random", "a"]):
        ax = figure.Figure().subplots()
        display = LearningCurveDisplay.from_records(rows, strategies=chosen, ax=ax)
        expected = list(dict.fromkeys([*chosen, "random"]))
        assert list(display.curves) == expected
        assert [line.get_label() for line in ax.lines] == expected
    with pytest.raises(ValueError, match="has 'c', of which there are no records"):
        LearningCurveDisplay.from_records(rows, strategies=["c"])


def test_full_data_line():
    ax = figure.Figure().subplots()
    rows = records("badge", 0, [0.2, 0.6])
    display = LearningCurveDisplay.from_records(rows, full_data=0.9, ax=ax)
    assert display.full_data == 0.9
    (line,) = [line for line in ax.lines if line.get_label() == "all labels"]
    assert set(line.get_ydata()) == {0.9}


def test_lines_look_as_in_every_picture():
    curves = {f"s{k}": ([1, 2], [[0.1, 0.2]]) for k in range(20)}
    curves["random"] = curves["s0"]
    ax = figure.Figure().subplots()
    LearningCurveDisplay(curves).plot(ax)
    assert len({(each.get_color(), each.get_linestyle()) for each in ax.lines}) > 4
    for line, (name, look) in zip(ax.lines, looks(curves).items(), strict=True):
        assert line.get_label() == name and line.get_marker() == look.marker
        assert line.get_color() == (look.color or "black")
    colors = pytest.importorskip("matplotlib.colors")
    bands = [band.get_facecolor()[0, :3].tolist() for band in ax.collections]
    assert bands == [list(colors.to_rgb(line.get_color())) for line in ax.lines]


def test_bands_stay_where_scores_can_be_and_can_be_left_out():
    curves = {
        "badge": ([1, 2], [[0.5, 0.8], [0.9, 1.0]]),
        "random": ([1, 2], [[0.4, 0.3], [0.1, 0.4]]),
    }
    for options, least, most in (({}, 0, 1), ({"gain": True}, -1, 1)):
        ax = figure.Figure().subplots()
        display = LearningCurveDisplay(curves).plot(ax, **options)
        heights = np.concatenate(
            [b.get_paths()[0].vertices[:, 1] for b in ax.collections]
        )
        assert heights.min() >= least and heights.max() == most
    assert display.interval("badge")[1].max() > 1  # the numbers are whole
    ax = figure.Figure().subplots()
    LearningCurveDisplay(curves).plot(ax, bands=False)
    assert len(ax.lines) == 2 and not len(ax.collections)


def test_seeds_are_checked():
    with pytest.raises(ValueError, match=r"seeds\['a'\] must be one for each of the 2"):
        LearningCurveDisplay({"a": ([1], [[0.1], [0.2]])}, seeds={"a": [3, 3]})
