"""Star formation histories, dust and the sampling of their parameters."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.spectral.dust import (
    birth_transmission,
    calzetti_curve,
    hat_weights,
    ism_transmission,
    knots,
)
from specphoto.spectral.parameters import ModelParameters, sample_parameters
from specphoto.spectral.priors import HISTORIES, History, Prior, Priors, parse_priors
from specphoto.spectral.sfh import age_weights, metallicity_weights, star_formation_rate

NODES = np.concatenate([[0.0], np.geomspace(1e6, 1e7, 12), np.geomspace(1e7, 1.4e10, 60)[1:]])


def one_model(**changes: float | str) -> ModelParameters:
    values = {
        "age": 5e9, "history": "delayed", "tau": 2e9, "alpha": 2.0, "beta": 1.5,
        "metallicity": 0.02, "a_v": 1.0, "slope": 0.7, "bump": 0.0, "birth_ratio": 1.0,
    }  # fmt: skip
    values |= changes
    values["history"] = HISTORIES.index(values["history"])
    return ModelParameters(**{k: np.array([v]) for k, v in values.items()})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tau": 1.5e10, "age": 1.35e10},
        {"history": "double power law"},
        {"history": "double power law", "alpha": 15.0, "beta": 0.3, "tau": 4e9},
        {"age": 1.2e8, "tau": 3e8},
        {"history": "exponential", "tau": 1e9},
        {"history": "log-normal", "alpha": 0.3},
        {"history": "gaussian", "alpha": 0.3, "tau": 3e9},
        {"history": "constant"},
    ],
)
def test_age_weights__keep_mass_and_mean_age(changes):
    p = one_model(**changes)
    young, old = age_weights(p, NODES)
    assert young.sum() + old.sum() == pytest.approx(1.0, abs=1e-12)
    split = young.shape[1]
    # the mean of anything linear in age is exact; compare with a fine sum
    since = (np.arange(200_000) + 0.5) / 200_000 * p.age[0]
    rate = star_formation_rate(since[None], p)[0]
    mean_age = np.sum(rate * (p.age[0] - since)) / rate.sum()
    found = young @ NODES[:split] + old @ NODES[split - 1 :]
    assert found[0] == pytest.approx(mean_age, rel=2e-3)
    recent = rate[p.age[0] - since < 1e7].sum() / rate.sum()
    assert young.sum() == pytest.approx(recent, rel=2e-3)


def test_age_weights__stars_younger_than_the_clouds_only():
    young, old = age_weights(one_model(age=8e6, tau=1e9), NODES)
    assert young.sum() == pytest.approx(1.0)
    assert old.sum() == 0.0


def test_star_formation_rate__families():
    s = np.array([[-1.0, 0.0, 1e9, 4e9]])
    tau = 2e9
    delayed = star_formation_rate(s, one_model())
    np.testing.assert_allclose(delayed[0], [0, 0, 0.5 * np.exp(-0.5), 2 * np.exp(-2)], rtol=1e-9)
    power = star_formation_rate(s, one_model(history="double power law"))
    u = s[0, 2:] / tau
    np.testing.assert_allclose(power[0, 2:], 1 / (u**2.0 + u**-1.5), rtol=1e-9)


def test_star_formation_rate__the_other_families():
    s, tau = np.array([[-1.0, 1e9, 2e9, 4e9]]), 2e9
    u = s[0, 1:] / tau
    wanted = {
        "exponential": np.exp(-u), "constant": np.ones(3),
        "log-normal": np.exp(-0.5 * (np.log(u) / 0.5) ** 2) / s[0, 1:],
        "gaussian": np.exp(-0.5 * ((u - 1.0) / 0.5) ** 2),
    }  # fmt: skip
    for name, rate in wanted.items():
        found = star_formation_rate(s, one_model(history=name, alpha=0.5))[0]
        np.testing.assert_allclose(found, [0.0, *rate], rtol=1e-9)


def test_age_weights__no_stars_at_all():
    late = one_model(history="gaussian", tau=1e12, alpha=0.02)
    with pytest.raises(InputError, match=r"found 1 models that form none.*shorter tau"):
        age_weights(late, NODES)


def test_metallicity_weights__linear_in_log():
    nodes = np.array([0.004, 0.008, 0.02, 0.05])
    lower, share = metallicity_weights(np.array([0.001, 0.008, np.sqrt(0.008 * 0.02), 1.0]), nodes)
    np.testing.assert_array_equal(lower, [0, 1, 1, 2])
    np.testing.assert_allclose(share, [0.0, 0.0, 0.5, 1.0], atol=1e-12)


def test_transmission__is_the_stated_law():
    wave = np.array([2175.0, 5500.0, 22000.0])
    p = one_model(a_v=1.5, slope=0.9, bump=0.0, birth_ratio=2.0)
    np.testing.assert_allclose(
        -2.5 * np.log10(ism_transmission(wave, p)[0]), 1.5 * (wave / 5500.0) ** -0.9
    )
    np.testing.assert_allclose(-2.5 * np.log10(birth_transmission(wave, p)[0]), 3.0 * 5500.0 / wave)
    bump = one_model(a_v=1.0, slope=0.9, bump=0.6)
    flat = one_model(a_v=1.0, slope=0.9, bump=0.0)
    ratio = ism_transmission(wave, bump) / ism_transmission(wave, flat)
    assert -2.5 * np.log10(ratio[0, 0]) == pytest.approx(0.6)
    assert ratio[0, 2] == pytest.approx(1.0, abs=1e-3)


def test_calzetti_curve__is_the_published_one():
    # R_V = 4.05 in V; the two polynomials meet at 0.63 micron; no light is made beyond their end
    assert calzetti_curve(np.array([5500.0]))[0] == pytest.approx(4.05, abs=0.01)
    # equation 4 by hand at 1500 A and at 1.6 micron
    hand = 2.659 * (-2.156 + 1.509 / 0.15 - 0.198 / 0.15**2 + 0.011 / 0.15**3) + 4.05
    assert calzetti_curve(np.array([1500.0]))[0] == pytest.approx(hand)
    hand = 2.659 * (-1.857 + 1.040 / 1.6) + 4.05
    assert calzetti_curve(np.array([16_000.0]))[0] == pytest.approx(hand)
    edge = calzetti_curve(np.array([6299.99, 6300.01]))
    assert edge[0] == pytest.approx(edge[1], rel=0.01)
    whole = calzetti_curve(np.geomspace(912.0, 6e4, 500))
    assert np.all(np.diff(whole) <= 1e-3)
    assert whole[-1] == 0.0
    p = one_model(a_v=1.5, slope=0.3, bump=2.0)
    wave = np.array([1500.0, 5500.0])
    dimmed = -2.5 * np.log10(ism_transmission(wave, p, "Calzetti")[0])
    np.testing.assert_allclose(dimmed, 1.5 * calzetti_curve(wave) / calzetti_curve(wave)[1])


def test_knots__are_close_enough_for_dust():
    wave = np.geomspace(1000.0, 55000.0, 5000)
    nodes = knots(wave[0], wave[-1])
    assert nodes[0] <= wave[0]
    assert nodes[-1] >= wave[-1]
    p = sample_parameters(256)
    lower, share = hat_weights(wave, nodes)
    for law in (ism_transmission, birth_transmission):
        exact, coarse = law(wave, p), law(nodes, p)
        between = coarse[:, lower] * (1 - share) + coarse[:, lower + 1] * share
        error = np.abs(between / exact - 1)
        assert error[exact > 0.01].max() < 2e-3
        assert np.quantile(error[exact > 0.01], 0.99) < 5e-4


@pytest.mark.parametrize(("low", "high"), [(3000.0, 3001.0), (12000.0, 20000.0), (5.0, 1e8)])
def test_knots__any_range_has_two_that_increase(low, high):
    nodes = knots(low, high)
    assert nodes.size >= 2
    assert np.all(np.diff(nodes) > 0)


def test_sample_parameters__same_points_every_time_and_longer_begins_with_shorter():
    short, long = sample_parameters(100), sample_parameters(300)
    for name in ("age", "tau", "metallicity", "a_v", "birth_ratio", "history"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:100])


def test_sample_parameters__fill_the_ranges_of_the_documentation():
    p = sample_parameters(4096)
    assert len(p) == 4096
    delayed = p.history == HISTORIES.index("delayed")
    assert delayed.mean() == pytest.approx(0.5, abs=1e-3)
    assert np.median(np.log10(p.age / 1e9)) == pytest.approx(np.log10(1.35) / 2, abs=0.01)
    for values, low, high in (
        (p.age, 1e8, 13.5e9), (p.tau[delayed], 1e8, 15e9), (p.alpha, 0.2, 20.0),
        (p.beta, 0.2, 20.0), (p.metallicity, 0.0004, 0.05), (p.slope, 0.4, 1.3),
    ):  # fmt: skip
        assert low <= values.min() < 1.1 * low
        assert 0.95 * high < values.max() <= high
    # star formation histories and ages must not be tied by the sequence
    assert abs(np.corrcoef(delayed, np.log(p.age))[0, 1]) < 0.01
    assert np.all(p.tau[~delayed] <= p.age[~delayed])


def test_sample_parameters__none_asked_for():
    with pytest.raises(InputError, match="expected a positive number of models, found 0"):
        sample_parameters(0)


def test_model_parameters__lengths_must_agree():
    p = one_model()
    with pytest.raises(InputError, match="one and the same length"):
        ModelParameters(**{**vars(p), "age": np.ones(2)})


# -- priors

U = (np.arange(20_000) + 0.5) / 20_000


def test_prior__quantiles_of_its_shape():
    flat, log = Prior("flat", 1.0, 3.0).at(U), Prior("log", 0.1, 10.0).at(U)
    assert flat.mean() == pytest.approx(2.0, rel=1e-4)
    assert np.log(log).mean() == pytest.approx(0.0, abs=1e-4)
    root = Prior("square root", 1.0, 5.0).at(U)
    assert np.sqrt(root - 1.0).mean() == pytest.approx(1.0, rel=1e-4)
    bell = Prior("gaussian", -50.0, 50.0, mean=2.0, sigma=0.5).at(U)
    assert (bell.mean(), bell.std()) == pytest.approx((2.0, 0.5), rel=1e-3)
    cut = Prior("gaussian", 2.0, 2.5, mean=2.0, sigma=0.5).at(U)
    assert cut.min() >= 2.0
    assert cut.max() <= 2.5
    # half of a Gaussian, from the mean to one sigma
    assert cut.mean() == pytest.approx(2.0 + 0.5 * 0.4598622, rel=1e-3)
    for shape in ("flat", "log", "square root", "gaussian"):
        prior = Prior(shape, 0.2, 4.0, mean=1.0, sigma=1.0)
        assert np.all(np.diff(prior.at(U)) > 0)
        assert prior.at(np.array([0.0]))[0] == pytest.approx(0.2)


def test_sample_parameters__families_by_their_shares():
    priors = Priors(
        histories={
            "gaussian": History(3.0, tau=Prior("flat", 0.2, 0.4), alpha=Prior("flat", 0.1, 0.1)),
            "constant": History(1.0),
        },
        a_v=Prior("flat", 0.7, 0.7),
    )  # fmt: skip
    p = sample_parameters(4096, priors)
    bell = p.history == HISTORIES.index("gaussian")
    assert bell.mean() == pytest.approx(0.75, abs=2e-3)
    assert np.all(p.history[~bell] == HISTORIES.index("constant"))
    ratio = p.tau[bell] / p.age[bell]
    assert 0.2 <= ratio.min() < ratio.max() <= 0.4
    assert np.all(p.alpha[bell] == 0.1)
    assert np.all(p.a_v == 0.7)


def test_parse_priors__as_recipes_have_them():
    priors = parse_priors(
        {"a_v": 0.5, "metallicity": {"gaussian": [0.02, 0.005, 0.004, 0.05]},
         "age": {"log": ["1e9", 13.5e9]}},
        {"exponential": {"share": 2, "tau": {"log": [1e8, 1e10]}}, "constant": None,
         "gaussian": {"tau_over_age": 0.5, "alpha": {"flat": [0.05, 0.2]}}}, "recipe",
    )  # fmt: skip
    assert priors.a_v == Prior("flat", 0.5, 0.5)
    assert priors.metallicity == Prior("gaussian", 0.004, 0.05, 0.02, 0.005)
    assert priors.age == Prior("log", 1e9, 13.5e9)
    assert priors.slope == Priors().slope
    assert list(priors.histories) == ["exponential", "constant", "gaussian"]
    assert priors.histories["exponential"].share == 2.0
    assert not priors.histories["exponential"].relative
    assert priors.histories["gaussian"].tau == Prior("flat", 0.5, 0.5)
    assert priors.histories["gaussian"].relative
    assert parse_priors({}, None, "recipe") == Priors()


@pytest.mark.parametrize(
    ("priors", "histories", "message"),
    [
        ({"av": 1}, None, r"recipe: priors: .* found 'av'; did you mean 'a_v'"),
        ({"a_v": "much"}, None, r"a_v: expected a number, found 'much'"),
        ({"a_v": True}, None, r"a_v: expected a number, found True"),
        ({"a_v": {"even": [0, 1]}}, None, r"a_v: expected a number, or one of flat, log"),
        ({"a_v": {"flat": [0]}}, None, r"a_v: expected 2 numbers for flat, found \[0\]"),
        ({"a_v": {"gaussian": [0, 1]}}, None, r"expected 4 numbers for gaussian"),
        ({"a_v": {"flat": [3, 0]}}, None, r"expected low to high within 0 to 50, found flat 3"),
        ({"a_v": {"log": [0, 3]}}, None, r"found log 0 to 3"),
        ({"age": {"flat": [0, 13.5]}}, None, r"age: expected low to high within 1e\+06 to 2e\+10"),
        ({}, {"taumodel": None}, r"histories: expected known keys, found 'taumodel'"),
        ({}, {"delayed": {"width": 1}}, r"delayed: expected known keys, found 'width'"),
        ({}, {"delayed": {"share": 0}}, r"delayed: expected a share above 0, found 0"),
    ],
)
def test_parse_priors__says_what_is_wrong(priors, histories, message):
    with pytest.raises(InputError, match=message):
        parse_priors(priors, histories, "recipe")
