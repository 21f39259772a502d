# The commands of the project. `make demo` and `make test` set up whatever they need first; the rest is for every day.
PYTHON  ?= python3
BIN      = .venv/bin
READY    = .venv/.ready
SHIM     = ktls/shim/libktls.so
C_FILES  = $(wildcard ktls/shim/*.c ktls/shim/*.h tests/*/*.c)
CHECK    = $(BIN)/python tools/check.py
ifdef CI
export KTLS_REQUIRE_LAB ?= 1
endif
MAKEFLAGS += --no-print-directory

.PHONY: help setup setup-lab setup-programs demo demo-lab test test-fast lint format sanitize bench programs clean
help:
	@echo "make demo       an unmodified http.server and curl talk TLS, and the wire is shown to carry none of it in clear"
	@echo "make demo-lab   the same through kTLS, in user-mode Linux"
	@echo "make test       everything CI runs: lint, native tests, the lab kernels (about an hour)"
	@echo "make test-fast  lint and the quick tests (under a minute)"
	@echo "make lint | format | sanitize | bench | programs | clean"

# --- set up: quick when there is nothing to do -----------------------------------------------------------------------

setup: $(READY) $(SHIM)

# A change of pyproject.toml or setup.py installs again; a change of the shim's sources only builds the shim.
$(READY): pyproject.toml setup.py tools/packages
	@tools/packages base
	@test -x $(BIN)/python || { echo "setup: creating .venv"; $(PYTHON) -m venv .venv; }
	@echo "setup: installing ktls and its tools into .venv"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[test,lab]'
	@touch $@

$(SHIM): $(wildcard ktls/shim/*.c ktls/shim/*.h) ktls/shim/Makefile
	@echo "setup: building the shim"
	@$(MAKE) -C ktls/shim OUT=libktls.so

setup-lab: setup
	@tools/packages lab
	@tools/lab setup

setup-programs: setup
	@tools/packages programs
	@tests/programs/sources/rust/build.sh build/rust

# --- see it ----------------------------------------------------------------------------------------------------------

demo: setup
	@$(BIN)/python tools/demo.py

demo-lab: setup-lab
	@tools/lab uml -- $(CURDIR)/$(BIN)/python tools/demo.py

# --- check it --------------------------------------------------------------------------------------------------------

test: setup-lab setup-programs
	@$(CHECK) lint native uml qemu

test-fast: setup
	@$(CHECK) lint fast

lint: setup
	@$(CHECK) lint

format: setup
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES)

# What shows the shim at work, without the programs of others: their own defects would end the run.
SHIM_TESTS = tests/shim $(patsubst %,tests/e2e/test_%.py,control_records failures flowcharts processes transfer wire)
CHECKED    = build/sanitized/libktls.so
OPTIONS    = build/sanitized/asan_options.so
LIBASAN    = $(shell $(CC) -print-file-name=libasan.so)

# The compiler's analyzer, then the tests against a build that checks every access. Python's objects come from malloc, so
# that libasan sees their ends.
sanitize: setup
	@$(MAKE) -C ktls/shim analyze
	@mkdir -p $(dir $(CHECKED)) && $(MAKE) -C ktls/shim sanitized OUT=$(CURDIR)/$(CHECKED)
	@$(CC) -shared -fPIC -o $(OPTIONS) tests/shim/asan_options.c
	@KTLS_SHIM=$(CURDIR)/$(OPTIONS):$(LIBASAN):$(CURDIR)/$(CHECKED) PYTHONMALLOC=malloc UBSAN_OPTIONS=print_stacktrace=1 \
	  $(BIN)/python -m pytest -q -m "not lab" $(SHIM_TESTS)

# The shim alone, with each program under valgrind. Left out: children whose environment valgrind itself changes.
valgrind: setup
	@tools/packages valgrind
	@mkdir -p $(dir $(VALGRIND))
	@$(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -static -o $(VALGRIND) tests/shim/valgrind_launcher.c \
	  -DLAUNCHER='"$(VALGRIND)"' -DMEMCHECK='"/usr/libexec/valgrind/memcheck-$(VALGRIND_ARCH)-linux"'
	@PYTHONMALLOC=malloc KTLS_TEST_UNDER="$(VALGRIND) $(VALGRIND_OPTIONS)" $(BIN)/python -m pytest -q --timeout=600 \
	  -k "not empty_environment and not two_ld_preloads" tests/shim/test_gate.py tests/shim/test_descriptors.py
VALGRIND = $(CURDIR)/build/valgrind/launcher
VALGRIND_ARCH = $(subst x86_64,amd64,$(shell uname -m))
VALGRIND_OPTIONS = -q --trace-children=yes --error-exitcode=99 --suppressions=$(CURDIR)/tests/shim/valgrind.supp

# What faces the outside, a minute a target; tools/fuzz has choices. atheris is heavy and only for this.
fuzz: setup
	@tools/packages fuzz
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[fuzz]'
	@tools/fuzz

bench: setup
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m pytest -q --benchmark-enable --benchmark-only tools/bench

# Real programs with and without us, natively and in user-mode Linux; what came out is written to docs/programs.md.
MEASURED = $(BIN)/python -m pytest -q -p no:cacheprovider tests/programs
programs: setup-lab setup-programs
	@rm -f build/programs-*.json
	@KTLS_PROGRAMS_MEASURE=1 KTLS_TEST_ENGINE=relay $(MEASURED)
	@KTLS_PROGRAMS_MEASURE=1 KTLS_TEST_ENGINE=kernel KTLS_REQUIRE_LAB=1 tools/lab uml -- $(CURDIR)/$(MEASURED)
	@$(BIN)/python tools/programs.py

clean:
	rm -rf build dist *.egg-info .venv/.ready .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@$(MAKE) -C ktls/shim clean
