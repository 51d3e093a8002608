# make demo   set everything up and run the main job on a virtual cluster
# make test   everything that CI runs
# make test-slow   tests that take long
# make bench  every measurement, each beside its peer, and the page of their figures: ONLY="NAME ..."
# make docs   the documentation as a site, in build/site
# make soak   random jobs under random faults on a lab, then what must hold: MINUTES=30 NODES=16 SEED=1
# make wheel  the package for pip, in dist: ARCH="x86_64 aarch64"
# make check  what must hold before each commit
# make audit  vulnerabilities of the pinned dependencies, asked of PyPI (needs the network)
SOURCES := setup.py src tests examples bench scripts/reference_pages.py scripts/shell_files.py

PYTEST  := .venv/bin/pytest -q

.PHONY: demo test test-slow bench docs soak wheel check audit native clean

demo:
	@scripts/setup demo
	@scripts/demo

test:
	@scripts/setup test
	@$(MAKE) -s check
	@$(PYTEST) -n 2 --no-loadscope-reorder -m "not slow"

test-slow:
	@scripts/setup test
	@$(PYTEST) -m slow

bench:
	@scripts/setup test
	@.venv/bin/python bench $(ONLY)

docs:
	@scripts/setup test
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true .venv/bin/mkdocs build --quiet
	@echo build/site/index.html

soak:
	@scripts/setup test
	@PYTHONPATH=tests/support .venv/bin/python tests/soak --minutes $(or $(MINUTES),30) --nodes $(or $(NODES),16) --seed $(or $(SEED),1)

wheel:
	@scripts/wheel $(ARCH)

native:
	@$(MAKE) -s -C spank
	@$(MAKE) -s -C gpusim

check:
	@.venv/bin/ruff format --check $(SOURCES)
	@.venv/bin/ruff check $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(MAKE) -s -C spank check
	@$(MAKE) -s -C gpusim check

audit:
	@python3 -m venv build/audit
	@build/audit/bin/pip install --quiet --disable-pip-version-check "pip-audit>=2.7"
	@build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	$(MAKE) -C spank clean
	$(MAKE) -C gpusim clean
	rm -rf dist .venv .venv-torch .images .mypy_cache .ruff_cache .pytest_cache src/piolet/_native
