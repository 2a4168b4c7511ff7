"""The laws of names, signatures, docstrings and imports, over every public function.

Each law was tried against a violation that was planted for it: a name in two modules; a name missing from ``__all__``,
and two out of order; a row of ``cases`` dropped; ``key`` called ``rng``, and ``key`` second; a positional option, an
option ``tau``, an option ``kind: str``; a docstring without ``Gradient``, without a doctest, without one argument; a
NamedTuple with an ``int`` field, and one without a docstring; a function without its ``@jit``; an import of
``jaxlab.estimators`` in ``jaxlab.gumbel``, one of flax in ``jaxlab.moments``, a circle in ``jaxlab.distributions``, and
a slow one in ``jaxlab``.
"""

import ast
import dataclasses
import graphlib
import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import jaxtyping
import pytest
from cases import CASES

import jaxlab

PACKAGE = Path(jaxlab.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name: importlib.import_module(f"jaxlab.{name}") for name in jaxlab.__all__}
PUBLIC = {f"{name}.{public}": getattr(module, public) for name, module in MODULES.items() for public in module.__all__}
CLASSES = {path: thing for path, thing in PUBLIC.items() if inspect.isclass(thing)}
NAMED_TUPLES = {path: cls for path, cls in CLASSES.items() if hasattr(cls, "_fields")}
FUNCTIONS = {path: thing for path, thing in PUBLIC.items() if inspect.isfunction(thing)}
METHODS = {
    f"{path}.{name}": method
    for path, cls in NAMED_TUPLES.items()
    for name, method in vars(cls).items()
    if inspect.isfunction(method) and not name.startswith("_")
}

# Law 9, lowest first: a module may import those of lower layers, and a package its own files.
LAYERS = (
    {"_check", "_chunks", "_precision", "_sorting"},
    {"_jit"},
    {"gradients", "gumbel", "moments", "recurrent"},
    {"distributions", "quantize", "ordered", "smooth"},
    {"metrics", "estimators"},
)
OUTSIDE = {"jax", "jaxtyping", *sys.stdlib_module_names}
FORBIDDEN = {
    "tau",
    "softness",
    "epsilon",
    "eps",
    "rng",
    "rng_key",
    "seed",
    "train",
    "training",
    "mode",
    "deterministic",
}
# A label in an error message, and not the name of a behaviour.
STRING_OPTION = {"gradients.first_order_only": "name", "gradients.with_gradient": "name"}
# They need a library that need not be there.
NO_DOCTEST = {"distributions.from_distrax", "distributions.from_numpyro"}


def over(table):
    return pytest.mark.parametrize(("path", "thing"), list(table.items()), ids=list(table))


def test_every_public_function_has_a_row_and_every_row_its_function():
    rows, functions = {case.name for case in CASES}, {*FUNCTIONS, *METHODS}
    assert sorted(functions - rows) == [], "no row in tests/cases"
    assert sorted(rows - functions) == [], "a row in tests/cases without its function"


def test_rows_have_labels_of_their_own():
    labels = [case.label for case in CASES]
    assert sorted({label for label in labels if labels.count(label) > 1}) == []


def test_no_public_name_stands_twice():
    names = [path.rpartition(".")[2] for path in PUBLIC] + list(MODULES)
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("name", [name for name in FILES if not name.rpartition(".")[2].startswith("_")])
def test_every_module_says_what_is_public(name):
    module = importlib.import_module(f"jaxlab.{name}".removesuffix(".__init__"))
    assert module.__doc__
    assert module.__all__ == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)
    package = name.partition(".")[0]
    assert set(module.__all__) <= set(MODULES[package].__all__), f"not public in jaxlab.{package}"


def test_every_module_is_public():
    modules = {name.partition(".")[0] for name in FILES}
    assert sorted(name for name in modules if not name.startswith("_")) == jaxlab.__all__


@over(FUNCTIONS | METHODS)
def test_signature(path, thing):
    signature = inspect.signature(thing)
    parameters = dict(signature.parameters)
    if path in METHODS:
        assert next(iter(parameters)) == "self"
        del parameters["self"]
    assert FORBIDDEN.isdisjoint(parameters)
    takes_key = [name for name, parameter in parameters.items() if parameter.annotation == jaxtyping.PRNGKeyArray]
    assert takes_key in ([], ["key"]), "a key is called key"
    assert takes_key == [name for name in parameters if "key" in name]
    assert takes_key == list(parameters)[: len(takes_key)], "key comes first"
    for name, parameter in parameters.items():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), name
        optional = parameter.default is not parameter.empty
        assert not optional or parameter.kind is parameter.KEYWORD_ONLY, name
        assert parameter.annotation is not parameter.empty, f"{name} has no annotation"
        assert parameter.annotation is not str or STRING_OPTION.get(path) == name, "two behaviours are two functions"
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("path", [path for path, cls in NAMED_TUPLES.items()])
def test_named_tuples_hold_arrays_only(path):
    for name, annotation in NAMED_TUPLES[path].__annotations__.items():
        assert name not in FORBIDDEN
        array = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
        # What an adapter holds is a distribution of another library, which is a pytree of arrays.
        assert array or annotation in NAMED_TUPLES.values() or path.startswith("distributions.Adapted"), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_array_functions_are_compiled_where_they_are_defined(case):
    """What its row calls compiled, and nothing else, stands below ``@jit`` of ``jaxlab._jit``."""
    decorators = inspect.getsource(inspect.unwrap(case.target)).partition("def ")[0]
    assert ("@jit(" in decorators) == case.compiled


def sections(docstring: str) -> set[str]:
    return {line.strip().partition(":")[0] for line in docstring.splitlines() if ":" in line}


@over(FUNCTIONS)
def test_docstring_of_a_function(path, thing):
    docstring = inspect.getdoc(thing)
    wanted = {"Returns", "Gradient"} | ({"Args"} if inspect.signature(thing).parameters else set())
    assert wanted <= sections(docstring)
    assert path in NO_DOCTEST or ">>> " in docstring[docstring.index("Examples:") :]
    arguments = docstring.partition("Args:")[2].partition("Returns:")[0]
    for name in inspect.signature(thing).parameters:
        assert f"\n  {name}: " in arguments, f"{name} is not explained"


@over(METHODS)
def test_docstring_of_a_method(path, thing):
    assert "Gradient:" in inspect.getdoc(thing)


@over(CLASSES)
def test_docstring_of_a_class(path, thing):
    assert thing.__doc__
    # The ones that Python writes for classes that have none.
    assert not thing.__doc__.startswith(f"{thing.__name__}(")
    for name, method in vars(thing).items():
        if inspect.isfunction(method) and not name.startswith("_") and not dataclasses.is_dataclass(thing):
            assert method.__doc__, name


def imports_of(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere in it, but for type checkers alone."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> int:
    return next(height for height, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize("name", list(FILES))
def test_imports_point_down(name):
    own = name.partition(".")[0]
    for imported in imports_of(FILES[name]):
        outside, *inside = imported.split(".")
        assert outside in OUTSIDE | {"jaxlab"}, f"{name} imports {imported}"
        if outside == "jaxlab" and own != "__init__" and inside[0] != own:
            assert layer_of(inside[0]) < layer_of(own), f"{name} imports {imported}"


def test_files_of_a_package_do_not_import_in_a_circle():
    def file_of(imported):
        parts = imported.split(".")[1:]
        return next((name for end in (2, 1) if (name := ".".join(parts[:end])) in FILES), None)

    graph = {name: {file_of(imported) for imported in imports_of(path)} - {None} for name, path in FILES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def python(program: str) -> list[str]:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_import_loads_no_other_library():
    everything = [f"jaxlab.{name}" for name in FILES if "__init__" not in name]
    loaded = python(f"import sys, jaxlab, {', '.join(everything)}; print(*sys.modules)")
    assert {"jax", *everything} <= set(loaded)
    heavy = {"flax", "optax", "chex", "distrax", "numpyro", "tensorflow_probability", "matplotlib", "sklearn", "pandas"}
    assert sorted(heavy & {name.partition(".")[0] for name in loaded}) == []


def test_import_costs_little_beside_that_of_jax():
    program = """
        import jax, time
        start = time.process_time()
        import jaxlab
        print(time.process_time() - start)
    """
    # At most 30 ms, by the law; on a busy machine the least of some tries is the cost.
    assert min(float(python(program)[0]) for _ in range(3)) < 0.03


def test_unknown_module_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxlab' has no attribute 'estimator'"):
        _ = jaxlab.estimator
    assert set(jaxlab.__all__) <= set(dir(jaxlab))
