"""Set the template error of the default library.

``python benchmarks/accuracy/train_template_error.py`` takes some minutes and prints it.

The amplitude at a few wavelengths and the correlation length are those under which the recovered
factors of the TRAIN families are the most probable: the mean of ``ln N(c - c_true; 0, C)`` over
pixels, photometric errors and S/N. The families that the benchmark tests on are not looked at.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from cases import BANDS, REDSHIFT, WAVE, Case, recover, reference, truth
from families import TRAIN
from threadpoolctl import threadpool_limits

from specphoto.photometry.filters import load_filters
from specphoto.spectral.template_error import DEFAULT_TEMPLATE_ERROR, TemplateError

if TYPE_CHECKING:
    from cases import Truth

CASES = ((0.03, 5.0), (0.03, 20.0), (0.1, 10.0))  # photometric error, S/N per channel
STEPS = (2.0, 1.5, 1.25)


def probability(error: TemplateError, data: list[Truth]) -> float:
    """Mean logarithm of the probability of what was recovered."""
    filters = load_filters(list(BANDS))
    plain = reference("bayesian")
    shared = replace(
        plain, error=error.project(REDSHIFT, filters, (WAVE[0], WAVE[-1]), len(plain.L))
    )
    inverse = np.linalg.pinv(plain.L)
    total = []
    for one in data:
        result = recover(one, shared).result
        away = result.coef - one.factor @ inverse
        known = np.isfinite(away[:, 0])
        C = result.cov[known]
        chi2 = np.einsum("pk,pkl,pl->p", away[known], np.linalg.inv(C), away[known])
        total.append(-0.5 * (chi2 + np.linalg.slogdet(C)[1]))
    return float(np.concatenate(total).mean())


def of(values: np.ndarray) -> TemplateError:
    """Template error of amplitudes and length."""
    return TemplateError(
        DEFAULT_TEMPLATE_ERROR.wave, tuple(values[:-1].tolist()), float(values[-1])
    )


def main(n_pixel: int = 80) -> None:
    """Search along one parameter at a time, in shrinking steps; print what is best."""
    data = [truth(Case(name, *case, n_pixel=n_pixel)) for name in TRAIN for case in CASES]
    values = np.array([*DEFAULT_TEMPLATE_ERROR.sigma, DEFAULT_TEMPLATE_ERROR.length])
    best = probability(of(values), data)
    print(f"{best:.4f}", of(values))
    for step in STEPS:
        for k in range(values.size):
            for factor in (step, 1.0 / step):
                trial = values.copy()
                trial[k] *= factor
                found = probability(of(trial), data)
                if found > best:
                    best, values = found, trial
                    print(f"{best:.4f}", of(values.round(4)), flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(*(int(a) for a in sys.argv[1:]))
