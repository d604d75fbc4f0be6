"""A PSF that varies with wavelength: operators between nodes, against each channel's own."""

from __future__ import annotations

import numpy as np
import pytest
from spatial_cases import apply_one

from specphoto.spatial.kernel import gaussian_kernel
from specphoto.spatial.operator import build_operator
from specphoto.spatial.varying import (
    VaryingOperator,
    apply,
    build_varying,
    interpolation,
    same_shape,
)

SHAPE = (20, 18)
NODES = np.array([4700.0, 6200.0, 7500.0, 8900.0])
WAVE = np.linspace(4000.0, 9500.0, 23)


def corners():
    edge = np.arange(9) * 3.0 - 2.5
    return np.meshgrid(edge, edge)


def kernels():
    return same_shape([gaussian_kernel(sigma) for sigma in (2.0, 2.2, 2.3, 2.35)])


def planes(seed=1):
    rng = np.random.default_rng(seed)
    flux = rng.normal(1.0, 1.0, (WAVE.size, *SHAPE)).astype(np.float32)
    return flux, (flux**2 + 0.1).astype(np.float32), rng.random(flux.shape) > 0.3


@pytest.fixture(params=[0.0, 2.0], ids=["dense", "sparse"])
def varying(request, monkeypatch):
    monkeypatch.setattr("specphoto.spatial.operator._SPARSE_BELOW", request.param)
    return build_varying(*corners(), SHAPE, NODES, kernels())


def test_apply__is_the_interpolated_operator_of_each_channel(varying):
    flux, variance, good = planes()
    sums = apply(varying, WAVE, flux, variance, good)
    dense = [n.weight if isinstance(n.weight, np.ndarray) else n.weight.toarray()
             for n in varying.node]  # fmt: skip
    for i, wave in enumerate(WAVE):
        share = [np.interp(wave, NODES, np.eye(4)[k]) for k in range(4)]
        weight = sum(t * a.astype(float) for t, a in zip(share, dense, strict=True))
        w = good[i].ravel()
        np.testing.assert_allclose(sums.flux[i], (w * flux[i].ravel()) @ weight, rtol=2e-4,
                                   atol=1e-4)  # fmt: skip
        np.testing.assert_allclose(sums.weight[i], w @ weight, rtol=1e-5)
        np.testing.assert_allclose(
            sums.variance[i], (w * variance[i].ravel()) @ weight**2, rtol=1e-4
        )


def test_apply__with_one_node_is_apply():
    operator = build_operator(*corners(), SHAPE, kernels()[0])
    flux, variance, good = planes()
    one = apply(VaryingOperator.constant(operator), WAVE, flux, variance, good)
    for a, b in zip(one, apply_one(operator, flux, variance, good), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_apply__is_continuous_across_nodes(varying):
    flux, variance, good = (np.repeat(a[:1], 2, axis=0) for a in planes())
    for node in NODES:
        around = np.array([node - 1e-3, node + 1e-3])
        for layer in apply(varying, around, flux, variance, good):
            np.testing.assert_allclose(layer[0], layer[1], rtol=1e-4, atol=1e-5)


def test_apply__does_not_depend_on_the_blocks(varying):
    flux, variance, good = planes()
    whole = apply(varying, WAVE, flux, variance, good)
    for first in range(0, WAVE.size, 7):
        part = slice(first, first + 7)
        some = apply(varying, WAVE[part], flux[part], variance[part], good[part])
        for a, b in zip(whole, some, strict=True):
            np.testing.assert_allclose(a[part], b, rtol=1e-5, atol=1e-5)


def test_at__is_the_operator_of_one_wavelength(varying):
    assert varying.at(NODES[2]) is varying.node[2]
    assert varying.at(3000.0) is varying.node[0]
    between = varying.at(5000.0)
    flux, variance, good = (a[:1] for a in planes())
    want = apply(varying, np.array([5000.0]), flux, variance, good)
    for a, b in zip(apply_one(between, flux, variance, good), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert between.kernel.sum() == pytest.approx(1.0)


def test_build_varying__a_shift_is_a_change_of_pointing():
    x, y = corners()
    shifted = build_varying(x, y, SHAPE, NODES, kernels(), shift=(0.4, -1.3))
    moved = build_varying(x + 0.4, y - 1.3, SHAPE, NODES, kernels())
    np.testing.assert_array_equal(shifted.node[1].weight, moved.node[1].weight)


def test_build_varying__nodes_share_their_rows(varying):
    for node in varying.node:
        np.testing.assert_array_equal(node.row, varying.common.row)
        assert node.weight.shape == varying.common.weight.shape


def test_interpolation__holds_at_the_ends_whatever_the_order():
    weights = interpolation(np.array([3000.0, 5000.0, 6000.0, 9000.0]), np.array([7000.0, 5000.0]))
    np.testing.assert_allclose(weights, [[0, 1], [0, 1], [0.5, 0.5], [1, 0]])


def test_same_shape__adds_nothing():
    wide = kernels()
    assert len({kernel.shape for kernel in wide}) == 1
    for kernel in wide:
        assert kernel.sum() == pytest.approx(1.0)
        assert kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] == kernel.max()
