r"""Statistics, biased and unbiased, merged and in pieces, with their errors.

Every statistic whose two versions differ takes ``unbiased``, which is True unless said otherwise. The unbiased version
is a mean over tuples of *different* samples (a U-statistic), the biased one over all (a V-statistic): the variance, the
discrepancies, the correlations. A function g of a mean is biased by the curvature of g; :func:`jackknife`,
:func:`delta` and :func:`multilevel` take that off, at a price in variance that they report.

A statistic over more samples than fit in memory (or on one device) is a small state: it is made from a part of the
samples, two states merge into the state of the union, and merging in any order and grouping gives the same numbers up
to rounding. Differences are taken from the mean, never between large sums: 10,000 + N(0, 1) in float32 keeps its
variance.
"""

from jaxlab.moments.curved import delta, log_mean_exp, multilevel
from jaxlab.moments.distances import (
    centered_kernel_alignment,
    energy_distance,
    gaussian_kernel,
    gini,
    hsic,
    kendall,
    linear_kernel,
    mmd,
)
from jaxlab.moments.higher import CentralMoments, CoMoments, central_moments_of, co_moments_of
from jaxlab.moments.mergeable import Moments, MovingAverage, moments_of, moving_average
from jaxlab.moments.resampling import Bootstrap, Estimate, bootstrap, jackknife
from jaxlab.moments.shrinkage import ShrunkCovariance, ledoit_wolf, oracle_approximating
from jaxlab.moments.statistics import (
    covariance,
    fourth_cumulant,
    kurtosis,
    mean,
    skewness,
    standard_deviation,
    third_cumulant,
    variance,
)
from jaxlab.moments.tuples import u_statistic, v_statistic

__all__ = [
    "Bootstrap",
    "CentralMoments",
    "CoMoments",
    "Estimate",
    "Moments",
    "MovingAverage",
    "ShrunkCovariance",
    "bootstrap",
    "centered_kernel_alignment",
    "central_moments_of",
    "co_moments_of",
    "covariance",
    "delta",
    "energy_distance",
    "fourth_cumulant",
    "gaussian_kernel",
    "gini",
    "hsic",
    "jackknife",
    "kendall",
    "kurtosis",
    "ledoit_wolf",
    "linear_kernel",
    "log_mean_exp",
    "mean",
    "mmd",
    "moments_of",
    "moving_average",
    "multilevel",
    "oracle_approximating",
    "skewness",
    "standard_deviation",
    "third_cumulant",
    "u_statistic",
    "v_statistic",
    "variance",
]
