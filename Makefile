# Two commands for everyone: `make demo` shows it at work, `make test` proves it. Both make their own .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m monai.bundle
DEMO := demo
SMALL := bundle/configs/networks/quickstart.json','bundle/configs/quickstart.json
DATA := --bundle_root bundle --dataset_dir $(DEMO)/patients --output_dir $(DEMO)/run

.PHONY: demo test lint clean

demo: .venv
	@mkdir -p $(DEMO)
	@rm -rf $(DEMO)/patients $(DEMO)/run $(DEMO)/synthetic
	$(BIN)/hmf simulate $(DEMO)/patients --subjects 16 --seed 1 --spacing 1.5
	$(RUN) run training --config_file "['bundle/configs/train.json','$(SMALL)']" $(DATA)
	$(RUN) run training --config_file "['bundle/configs/train.json','$(SMALL)','bundle/configs/networks/unet.json']" $(DATA)
	$(RUN) run evaluating --config_file "['bundle/configs/train.json','bundle/configs/evaluate.json','$(SMALL)']" $(DATA)

test: .venv
	$(BIN)/python -m pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv $(DEMO) build *.egg-info

.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,test]"
	@touch .venv
