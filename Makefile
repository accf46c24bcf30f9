# Everything a user or CI does. Each target sets up what it needs.
#
#   make demo    find a mixture with one proxy model on real text, on this machine's CPU
#   make demo-sft   the same for instruction data, from a model trained on what the demo found
#   make test    lint, type-check and run all tests
#   make bench   the short speed benchmarks, into docs/speed.md
#   make quality-corpora   the corpora on which mixtures are judged (research/bigram_regime.md)
#   make soak    an hour or two of faults, fuzzing and watching memory (docs/reliability.md)
#   make lock    requirements.lock, with the hashes of all that requirements.txt brings
#   make supply  what is installed: a list (CycloneDX), licences, known vulnerabilities (docs/trust.md)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUPPLY := $(VENV)/supply/bin
# Two, or one where there is one GPU; a GPU that torch cannot use is an error.
DEMO_PROCESSES = $$($(BIN)/python -m fastmix_mega.parallel.devices --at-most 2)

.PHONY: demo demo-sft test lint bench soak lock supply quality-corpora clean

demo: $(READY)
	$(BIN)/python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo
	$(BIN)/fastmix search configs/demo.yaml --nproc $(DEMO_PROCESSES)

# The demo's model, trained on the mixture that the demo found, is what the instructions start from.
demo-sft: $(READY)
	test -f runs/demo/mixture.json || $(MAKE) demo
	test -d runs/demo_base/checkpoints/step_400 || $(BIN)/fastmix train configs/demo.yaml --nproc $(DEMO_PROCESSES) \
		mixture=runs/demo/mixture.json run_dir=runs/demo_base checkpoint.final=true
	$(BIN)/python -m data_tools.build_instructions configs/instructions_demo.yaml \
		--tokenizer data/demo/tokenizer.model --output data/sft
	$(BIN)/fastmix search configs/demo_sft.yaml --nproc $(DEMO_PROCESSES)

# Files are shared out among TEST_WORKERS processes, in the order that tests/conftest.py gives.
TEST_WORKERS ?= 2
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile \
		--no-loadscope-reorder --durations 20

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck -x slurm/*.sbatch slurm/*.sh tests/*.sh tests/slurm/*.sh .ci/run

bench: $(READY)
	$(BIN)/python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo
	$(BIN)/python -m benchmarks.speed configs/demo.yaml

soak: $(READY)
	$(BIN)/python -m tests.stress.fault_campaign --kills 50
	$(BIN)/python -m tests.stress.healing_campaign --faults 200 --jobs 2
	$(BIN)/python -m tests.stress.kill_tools --kills 100
	$(BIN)/python -m tests.stress.fuzz --count 10000 --runs 20
	$(BIN)/python -m tests.stress.fuzz_data --count 6000
	$(BIN)/python -m tests.stress.fuzz_inputs --count 20000
	$(BIN)/python -m tests.stress.clashing_names --runs 5000
	$(BIN)/python -m tests.stress.soak --minutes 20

# From PyPI alone, whatever this machine's own mirror holds.
lock: $(SUPPLY)/uv
	$(SUPPLY)/uv --no-config pip compile requirements.txt --output-file requirements.lock --quiet \
		--universal --python-version 3.11 --generate-hashes --no-header \
		--index-url https://pypi.org/simple
	printf '%s\n' '# Made by `make lock` from requirements.txt, for Python 3.11 and later: every file' \
		'# on PyPI, with its SHA-256. On Linux torch is the CUDA build, as `pip install torch`' \
		'# gives. docs/trust.md says more.' | cat - requirements.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

supply: $(READY) $(SUPPLY)/uv
	$(SUPPLY)/cyclonedx-py requirements requirements.lock --of JSON --output-file sbom.cdx.json
	$(BIN)/python -m tests.supply.sbom sbom.cdx.json
	$(SUPPLY)/python tests/supply/validate_sbom.py sbom.cdx.json
	$(BIN)/python -m tests.supply.licences
	$(BIN)/python -m tests.supply.audit $(SUPPLY)/pip-audit

$(SUPPLY)/uv: $(READY) requirements-supply.txt
	$(PYTHON) -m venv --clear $(VENV)/supply
	$(SUPPLY)/python -m pip install --quiet --requirement requirements-supply.txt
	touch $@

# The three families of the judge (research/bigram_regime.md), and the third in many pieces; the second and
# third need Debian's apt-get.
quality-corpora: $(READY)
	$(BIN)/python -m research.quality.packages --output data/quality/packages
	$(BIN)/python -m research.quality.packages --family languages \
		--output data/quality/packages_languages
	for family in demo debian languages; do $(BIN)/python -m data_tools.prepare \
		research/quality/configs/$${family}_corpora.yaml --output data/quality/$$family || exit; done
	$(BIN)/python -m research.quality.pieces data/quality/languages --output data/quality/languages_many

# The stamp is written last: an interrupted set-up starts again from a clean folder.
$(READY): requirements.txt requirements-consumers.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt setuptools
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/consumers \
		--requirement requirements-consumers.txt
	touch $@

clean:
	rm -rf $(VENV) data/demo runs/demo
