PY := .venv/bin/python
WHEELS := $(or $(PIP_FIND_LINKS),$(shell python3 -m pip config get global.find-links 2>/dev/null))
export RAY_USAGE_STATS_ENABLED := 0
export DO_NOT_TRACK := 1
# A file at a time, so that what its tests share is made once; in the order of tests/conftest.py.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder
# Runs a command, one at a time in this checkout: two would install into each other's half-made environment.
ALONE := python3 -c 'import fcntl, subprocess as s, sys; f = open("Makefile", "r+"); fcntl.flock(f, 2); sys.exit(s.call(sys.argv[1:]))'

.PHONY: quickstart test test-fast lint docs gpu-report clean

quickstart: .venv/ready     ## the whole pipeline on this machine, end to end
	.venv/bin/maskhand quickstart

test: lint                  ## everything, 23 minutes on 2 cores with the environment
	$(PY) -m pytest $(BESIDE)

test-fast: .venv/ready      ## the inner loop, under 3 minutes
	$(PY) -m pytest $(BESIDE) -m "not slow and not gpu"

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: .venv/ready           ## the site with API pages, in site/
	$(PY) -m mkdocs build --strict

gpu-report: .venv/ready     ## what one GPU does with maskhand, a table, at most 8 minutes
	$(PY) benchmarks/gpu_report.py

.venv/ready: pyproject.toml constraints.txt
	@$(ALONE) $(MAKE) --no-print-directory .venv/made
	@touch $@

.venv/made: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install -q uv==0.13.9
	.venv/bin/uv pip install --compile-bytecode --python $(PY) $(addprefix --find-links ,$(WHEELS)) -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv workspace site
