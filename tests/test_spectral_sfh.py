"""Star formation histories, dust and the sampling of their parameters."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.spectral.dust import birth_transmission, hat_weights, ism_transmission, knots
from specphoto.spectral.parameters import ModelParameters, sample_parameters
from specphoto.spectral.sfh import age_weights, metallicity_weights, star_formation_rate

NODES = np.concatenate([[0.0], np.geomspace(1e6, 1e7, 12), np.geomspace(1e7, 1.4e10, 60)[1:]])


def one_model(**changes: float | bool) -> ModelParameters:
    values = {
        "age": 5e9, "delayed": True, "tau": 2e9, "alpha": 2.0, "beta": 1.5, "metallicity": 0.02,
        "a_v": 1.0, "slope": 0.7, "bump": 0.0, "birth_ratio": 1.0,
    }  # fmt: skip
    return ModelParameters(**{k: np.array([v]) for k, v in (values | changes).items()})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tau": 1.5e10, "age": 1.35e10},
        {"delayed": False},
        {"delayed": False, "alpha": 15.0, "beta": 0.3, "tau": 4e9},
        {"age": 1.2e8, "tau": 3e8},
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
    power = star_formation_rate(s, one_model(delayed=False))
    u = s[0, 2:] / tau
    np.testing.assert_allclose(power[0, 2:], 1 / (u**2.0 + u**-1.5), rtol=1e-9)


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
    for name in ("age", "tau", "metallicity", "a_v", "birth_ratio", "delayed"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:100])


def test_sample_parameters__fill_the_ranges_of_the_documentation():
    p = sample_parameters(4096)
    assert len(p) == 4096
    assert p.delayed.mean() == pytest.approx(0.5, abs=1e-3)
    assert np.median(np.log10(p.age / 1e9)) == pytest.approx(np.log10(1.35) / 2, abs=0.01)
    for values, low, high in (
        (p.age, 1e8, 13.5e9), (p.tau[p.delayed], 1e8, 15e9), (p.alpha, 0.2, 20.0),
        (p.beta, 0.2, 20.0), (p.metallicity, 0.0004, 0.05), (p.slope, 0.4, 1.3),
    ):  # fmt: skip
        assert low <= values.min() < 1.1 * low
        assert 0.95 * high < values.max() <= high
    # star formation histories and ages must not be tied by the sequence
    assert abs(np.corrcoef(p.delayed, np.log(p.age))[0, 1]) < 0.01
    assert np.all(p.tau[~p.delayed] <= p.age[~p.delayed])


def test_sample_parameters__none_asked_for():
    with pytest.raises(InputError, match="expected a positive number of models, found 0"):
        sample_parameters(0)


def test_model_parameters__lengths_must_agree():
    p = one_model()
    with pytest.raises(InputError, match="one and the same length"):
        ModelParameters(**{**vars(p), "age": np.ones(2)})
