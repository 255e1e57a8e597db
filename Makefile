# make demo | test | lint | bench. Each makes .venv first if it is missing or out of date.
# Another Python: make test PYTHON=python3.12 (used when .venv is made; rm -rf .venv to change it).

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIN := ulga_d2/installation/detectron2.txt
DEMO := output/demo
PREDICT = $(VENV)/bin/ulga predict $(DEMO) $(DEMO)/datasets/new/images/train --out $(DEMO)/predictions --score best-f1

.PHONY: help demo test lint bench
.DELETE_ON_ERROR:

help:
	@echo 'make demo   install, write sample data, train a small ULGA-Swin, evaluate, predict on new images ($(DEMO)/)'
	@echo 'make test   install, run the tests'
	@echo 'make lint   install, check style and format'
	@echo 'make bench  install, measure speed and memory beside peers (half an hour on two cores)'

# Each run starts anew, on the same data.
demo: $(DEMO)/datasets/.ready
	@rm -rf $(filter-out $(DEMO)/datasets,$(wildcard $(DEMO)/*))
	DETECTRON2_DATASETS=$(DEMO)/datasets $(RUN) train_net.py --config-file configs/demo.yaml OUTPUT_DIR $(DEMO)
	@echo 'Detections on images that were in neither split:'
	$(PREDICT)
	@echo 'Again, or on images of your own: $(PREDICT) --overwrite'

test: $(VENV)/.ready
	$(RUN) -m pytest

lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(VENV)/.ready
	$(RUN) -m benchmarks.backbones
	$(RUN) -m benchmarks.memory
	$(RUN) -m benchmarks.detector
	$(RUN) -m benchmarks.inference --images 60
	$(RUN) -m benchmarks.tiles
	$(RUN) -m benchmarks.loader
	$(RUN) -m benchmarks.evaluation
	$(RUN) -m benchmarks.scaling --picture docs/figures/scaling.png
	$(RUN) -m benchmarks.ranks

# Written once; a write that was interrupted is begun anew.
$(DEMO)/datasets/.ready: | $(VENV)/.ready
	@rm -rf $(DEMO)/datasets
	$(VENV)/bin/ulga sample brain_tumor $(DEMO)/datasets/brain_tumor --num-train 400 --num-val 100 --size 128 --difficulty easy
	$(VENV)/bin/ulga sample brain_tumor $(DEMO)/datasets/new --num-train 12 --num-val 1 --size 128 --difficulty easy --seed 1000
	@touch $@

$(VENV)/.ready: pyproject.toml constraints.txt $(PIN)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'error: Python 3.10 or newer is needed as $(PYTHON); name another: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv'; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --retries 5 --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/ulga install-detectron2
	$(VENV)/bin/ulga doctor
	@touch $@
