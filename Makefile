# Everything a clone needs: the targets make what they use. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-vm check lint bench soak mutants lock format

BIN := .venv/bin

help: ## print each target with its sentence
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: ## make .venv from the locked requirements and install bursar into it
	@scripts/venv

demo: venv ## run the main job on real agents, without bursar and with it, and judge both
	@$(BIN)/bursar demo

test: venv ## run every test that this machine allows, and list what was skipped and why
	@$(BIN)/python tests/run.py

test-vm: venv ## the kernel stories whole in a VM with pure cgroup v2, the ladder with and without swap: about twenty minutes
	@$(BIN)/python tests/vm/run.py --timeout 1200 --mem 3G tests/officer/test_out_of_memory.py tests/officer/test_squeeze.py tests/officer/test_queue.py tests/officer/test_ceiling.py
	@$(BIN)/python tests/vm/run.py --timeout 1200 --mem 3G --disk 1G tests/officer/test_quota.py tests/officer/test_disk.py
	@$(BIN)/python tests/vm/run.py --timeout 1200 --mem 3G --disk 1G tests/officer/test_ladder.py
	@$(BIN)/python tests/vm/run.py --timeout 1200 --mem 3G --disk 1G --swap 512M tests/officer/test_ladder.py

lint: venv ## format, lint, types, layers and generated docs
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/python tools/facade.py --check

check: lint ## lint, and the tests that need neither kernel nor patience: less than a minute
	@$(BIN)/pytest -q -m "not kernel and not vm and not slow"

bench: venv ## measure what docs and README claim; prints a table, needs a quiet machine
	@$(BIN)/python -m benchmarks

soak: venv ## the long tests; MINUTES=60 of a random life with faults (3 without), and 100,000 tool calls on a machine of numbers
	@BURSAR_MINUTES=$(or $(MINUTES),3) $(BIN)/pytest -q -m slow --timeout 3600

mutants: venv ## take each branch of the officer's deeds away and show the kernel test that notices
	@$(BIN)/python tests/mutation/mutants.py

format: venv ## let ruff write the house's format
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

lock: export CUSTOM_COMPILE_COMMAND = make lock
lock: COMPILE = $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-options --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
lock: venv ## renew both locks from pyproject.toml and requirements/dev.in
	@$(COMPILE) -o requirements/run.lock pyproject.toml
	@$(COMPILE) -o requirements/dev.lock pyproject.toml requirements/dev.in
