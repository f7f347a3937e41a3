# Two commands matter on a fresh machine, `make serve` and `make test`; both set up what is missing
# first. Needed: Python 3.11 or newer with pip, git, make. Nothing is installed outside this folder.

PY      ?= python3
UV      := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
# Certificates as the system has them, so that a company's own authority works as it does for pip.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif
# `make test PY=python3.13` keeps an environment of its own beside the usual one.
VENV    := $(if $(filter command line,$(origin PY)),.venv-$(notdir $(PY)),.venv)
V       := $(VENV)/bin
ARGS    ?=

.DEFAULT_GOAL := help
.PHONY: help serve demo test check e2e docs bench torture format lock clean

help:  ## print this list
	@sed -n 's/^\([a-z0-9]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

serve: $(VENV)/.run  ## run the example job service on port 8080 (PORT=… changes it)
	$(V)/windlass serve $(ARGS)

demo: $(VENV)/.run  ## watch a few hundred jobs, failures and a killed worker; ends by itself
	$(V)/windlass demo $(ARGS)

test: $(VENV)/.dev  ## run every test (ARGS="-k claim -x" goes to pytest)
	$(V)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, layers
	$(V)/ruff format --check
	$(V)/ruff check
	$(V)/mypy
	$(V)/lint-imports

e2e: $(VENV)/.dev  ## only the tests that drive the running service from outside
	$(V)/python -m pytest tests/e2e $(ARGS)

docs: $(VENV)/.dev  ## run the code blocks of the documentation
	$(V)/python -m pytest tests/docs $(ARGS)

bench: $(VENV)/.dev  ## measure (ARGS goes to benchmarks/run.py)
	$(V)/python benchmarks/run.py $(ARGS)

torture: $(VENV)/.dev  ## the reliability, model and fuzz tests with their full counts
	WINDLASS_TORTURE=1 $(V)/python -m pytest tests/reliability tests/stores/test_model.py \
		tests/server/test_openapi_fuzz.py $(ARGS)

format: $(VENV)/.dev  ## let ruff format and sort
	$(V)/ruff check --fix-only
	$(V)/ruff format

# The pins, for every platform and Python at once; they name packages and hashes, and no host.
COMPILE := pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

lock: | $(UV)  ## renew the pins in requirements/
	$(UV) $(COMPILE) --upgrade --no-emit-package windlass requirements/run.in -o requirements/run.lock
	$(UV) $(COMPILE) --upgrade -c requirements/run.lock requirements/dev.in -o requirements/dev.lock

clean:  ## remove environments and caches
	rm -rf .venv .venv-* .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -prune -exec rm -rf {} +

.tools/bin/uv:
	$(PY) -m pip install -q --disable-pip-version-check --no-warn-script-location --target .tools "uv==0.13.8"

$(VENV)/.run: requirements/run.lock pyproject.toml | $(UV)
	test -x $(V)/python || $(UV) venv -q --python $(PY) $(VENV)
	$(UV) pip install -q --python $(V)/python --require-hashes -r requirements/run.lock
	$(UV) pip install -q --python $(V)/python --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(UV) pip install -q --python $(V)/python --require-hashes -r requirements/dev.lock
	touch $@
