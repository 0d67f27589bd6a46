# make demo                              compress a real text under a real question
# make demo FILE=notes.txt QUERY="..."   the same for a file of yours
# make test                              run the tests
# make quick                             measure the critic on generated data; fails where it fell below benchmarks/quick.json
# Everything is installed into .venv; nothing but Python 3.11 or newer is needed before.

PYTHON ?= python3
EXTRAS ?= test,langchain,classic,clients,bench
VENV   ?= .venv
BIN    := $(VENV)/bin
TORCH  := $(shell grep '^torch==' constraints.txt)
CORE   := $(VENV)/.core-installed
ALL    := $(VENV)/.all-installed

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FILE QUERY

# Written with: cprs bench --quick --no-baselines --out benchmarks/quick.json
BEFORE := $(wildcard benchmarks/quick.json)

.PHONY: demo test quick lint clean

demo: $(CORE)
	@if [ -n "$$FILE" ] && [ -z "$$QUERY" ]; then echo 'make demo FILE=... needs QUERY="your question"' >&2; exit 2; fi
	@$(BIN)/cprs demo $${QUERY:+--query "$$QUERY"} $${FILE:+"$$FILE"}

test: $(ALL)
	HF_HUB_OFFLINE=1 LANGSMITH_TRACING=false OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

quick: $(ALL)
	HF_HUB_OFFLINE=1 $(BIN)/cprs bench --quick --no-baselines $(if $(BEFORE),--against $(BEFORE))

lint: $(ALL)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

# The constraints pin a torch with a CPU-only wheel. torch goes in first: any looser resolve brings CUDA along.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt '$(TORCH)'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(ALL): $(CORE)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
