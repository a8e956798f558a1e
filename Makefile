# Two commands do everything on a fresh machine: `make paper` and `make test`.
SHELL := /bin/bash
# Without it every job would compile its imports again: seconds each in environments of conda.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
CORES ?= all
# Processes of `make test`; three keep two cores busy, since some tests wait for others' jobs.
WORKERS ?= 3
STUDY ?= organisms
BIN := .venv/bin
TEX_PACKAGES := $(shell cat envs/tex.txt)

# A study other than the default one is an overlay in studies/.
OVERLAY := $(if $(filter-out organisms,$(STUDY)),--configfile studies/$(STUDY).yaml)

.PHONY: paper smoke planted verify archive artifact test bench bench-gpu compare environments docs lint tex slurm browser report clean

paper: .venv/installed tex  ## train the organisms, run every experiment, write the PDF
	@$(BIN)/python workflow/scripts/check_study.py $(wordlist 2,2,$(OVERLAY)) >/dev/null
	@start=$$SECONDS; \
	$(BIN)/snakemake --cores $(CORES) $(OVERLAY) && \
	$(BIN)/python workflow/scripts/closing.py results/$(STUDY) $$((SECONDS - start))

smoke:  ## the whole chain, PDF included, on one raw organism, in about two minutes
	@$(MAKE) --no-print-directory paper STUDY=smoke

verify: .venv/installed  ## hold a finished run to the expected values: pass or fail per claim
	@$(BIN)/python workflow/scripts/verify_run.py results/$(STUDY) $(OPTIONS)

archive: .venv/installed tex  ## pack a finished study into one file, and its paper for arXiv
	$(BIN)/snakemake --cores $(CORES) $(OVERLAY) archive

report: .venv/installed  ## Snakemake's report on a finished study: figures, tables, methods, configuration
	$(BIN)/snakemake --cores $(CORES) $(OVERLAY) --report results/$(STUDY)/report.zip

artifact: .venv/installed  ## expect the values of a finished run from now on, and write ARTIFACT.md
	$(BIN)/python workflow/scripts/write_expected.py results/$(STUDY) $(OPTIONS)
	$(BIN)/python workflow/scripts/write_artifact.py

planted:  ## organisms whose refusal subspace is known: proof, estimators, and a report as PDF
	@$(MAKE) --no-print-directory paper STUDY=planted

test: .venv/installed tex lint  ## unit, parity and architecture tests, and the smoke study
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

bench: .venv/installed  ## print the speed ratios of the README
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

compare: .venv/installed  ## compare two runs: make compare LEFT=results/organisms RIGHT=elsewhere/organisms
	@mkdir -p results
	$(BIN)/python workflow/scripts/compare_runs.py $(LEFT) $(RIGHT) --report results/compare.html $(OPTIONS)

bench-gpu: .venv/installed  ## the same ratios on a GPU, at real sizes; says so where there is none
	$(BIN)/python benchmarks/gpu.py

environments: .venv/installed  ## write envs/ again, after an import, a rule or a version changed
	$(BIN)/python workflow/scripts/write_environments.py

docs: .venv/installed  ## write docs/reference/ again, after the schema or a docstring changed
	$(BIN)/python workflow/scripts/write_reference.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" \
		$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	touch $@

tex:
	@if ! command -v latexmk >/dev/null || ! command -v pdftotext >/dev/null || \
		! kpsewhich siunitx.sty balance.sty >/dev/null; then \
		if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			echo "Installing TeX (about two minutes)"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(TEX_PACKAGES) >/dev/null; \
		else \
			echo "TeX is missing. Remedy: sudo apt-get install $(TEX_PACKAGES)"; exit 1; \
		fi; \
	fi

slurm:  ## what the tests of profiles/slurm start a cluster with; they are skipped without it
	@export PATH=$$PATH:/usr/sbin; if ! type slurmctld slurmd sbatch munged &>/dev/null; then \
		if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			echo "Installing SLURM (about ten seconds)"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; \
		else \
			echo "SLURM is missing. Remedy: sudo apt-get install slurm-wlm munge"; exit 1; \
		fi; \
	fi

browser:  ## what the tests of the explorer open its page with; they are skipped without it
	@command -v chromium >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

clean:
	rm -rf results logs
