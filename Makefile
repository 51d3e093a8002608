# make demo   set everything up and run the main job on a virtual cluster
# make test   everything that CI runs
# make check  what must hold before each commit
PYTHON  := .venv/bin/python
SOURCES := src tests examples bench scripts

.PHONY: demo test test-slow check native setup clean

setup:
	@scripts/setup demo

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

clean:
	$(MAKE) -C spank clean
	$(MAKE) -C gpusim clean
	rm -rf .venv .images .mypy_cache .ruff_cache .pytest_cache src/piolet/_native
