"""Rows of the adapters of ``jaxlab.distributions``, which make their distribution themselves."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from cases.case import CODES, LOGITS, ONE_UP, ROWS, SCALE, VALUE, Case
from jaxlab.distributions import Adapted, AdaptedEnumerable, AdaptedReparameterizable, from_distrax, from_numpyro


def made(path: str, *parameters: Any) -> Any:
    """A distribution of another library, which is read when it is first needed, without its warnings about itself."""
    library, _, family = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(library), family)(*parameters)


def adapted(
    name: str, function: Callable, *data: str, results: tuple[str, ...] = ("wide",), exact=(), returned=""
) -> Case:
    """A row that makes its distribution itself: gradients are for that one's parameters. Dtypes are its library's."""
    arguments = {
        name: {"logits": ROWS, "loc": LOGITS, "scale": SCALE, "value": VALUE, "codes": CODES[:2]}[name] for name in data
    }
    promises = {"exact": exact, "results": results, "wide": data, "compiled": False}
    axes = {"logits": "*shape k", "loc": "*shape", "scale": "*shape", "value": "*shape", "codes": "*shape"}
    promises |= {
        "axes": axes,
        "returned": (returned,),
        "sizes": {"*shape": (1, 2, 3), "k": ONE_UP},
    }  # numpyro makes none
    promises |= {"below": {"codes": "k"} if "codes" in data else {}}
    return Case(f"distributions.{name}", arguments, function=function, **promises)


def numpyro_path(loc, scale):
    return AdaptedReparameterizable(made("numpyro.distributions.Normal", loc, scale))


def numpyro_codes(adapter, logits):
    return adapter(made("numpyro.distributions.CategoricalLogits", logits))


TWO, ALL = ("loc", "scale"), ("loc", "scale", "value")
INTEGER = ("integer",)
ADAPTED = (
    adapted(
        "from_distrax",
        lambda loc, scale, value: from_distrax(made("distrax.Normal", loc, scale)).log_prob(value),
        *ALL,
        exact=ALL,
    ),
    adapted(
        "from_numpyro",
        lambda key, loc, scale: from_numpyro(made("numpyro.distributions.Normal", loc, scale)).reparameterize(key),
        *TWO,
        exact=TWO,
        returned="*shape",
    ),
    adapted(
        "Adapted.sample",
        lambda key, logits: numpyro_codes(Adapted, logits).sample(key),
        "logits",
        results=INTEGER,
        returned="*shape",
    ),
    adapted(
        "Adapted.log_prob",
        lambda logits, codes: numpyro_codes(Adapted, logits).log_prob(codes),
        "logits",
        "codes",
        exact=("logits",),
    ),
    adapted(
        "AdaptedReparameterizable.sample",
        lambda key, loc, scale: numpyro_path(loc, scale).sample(key),
        *TWO,
        returned="*shape",
    ),
    adapted(
        "AdaptedReparameterizable.log_prob",
        lambda loc, scale, value: numpyro_path(loc, scale).log_prob(value),
        *ALL,
        exact=ALL,
    ),
    adapted(
        "AdaptedReparameterizable.reparameterize",
        lambda key, loc, scale: numpyro_path(loc, scale).reparameterize(key),
        *TWO,
        exact=TWO,
        returned="*shape",
    ),
    adapted(
        "AdaptedEnumerable.sample",
        lambda key, logits: numpyro_codes(AdaptedEnumerable, logits).sample(key),
        "logits",
        results=INTEGER,
        returned="*shape",
    ),
    adapted(
        "AdaptedEnumerable.log_prob",
        lambda logits, codes: numpyro_codes(AdaptedEnumerable, logits).log_prob(codes),
        "logits",
        "codes",
        exact=("logits",),
    ),
    adapted(
        "AdaptedEnumerable.support",
        lambda logits: numpyro_codes(AdaptedEnumerable, logits).support(),
        "logits",
        results=INTEGER,
        returned="states *shape",
    ),
)
