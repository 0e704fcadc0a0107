# Two commands for everyone: `make demo` shows it at work, `make test` proves it. Both make their own .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m monai.bundle run
CONFIGS := bundle/configs
SMALL := '$(CONFIGS)/tasks/brats_t1_flair_to_t2.json','$(CONFIGS)/networks/quickstart.json','$(CONFIGS)/quickstart.json'
HERE := --bundle_root bundle --output_dir demo/run
SCAN := demo/new_patient/BraTS-SIM-00001-000/BraTS-SIM-00001-000
MADE := demo/synthetic/BraTS-SIM-00001_000/BraTS-SIM-00001_000_t2_synth.nii.gz

.PHONY: demo test lint clean

demo: .venv
	rm -rf demo
	$(BIN)/hmf simulate demo/patients --subjects 60 --seed 1 --spacing 2
	$(RUN) training --config_file "['$(CONFIGS)/train.json',$(SMALL)]" --dataset_dir demo/patients $(HERE)
	$(RUN) training --config_file "['$(CONFIGS)/train.json',$(SMALL),'$(CONFIGS)/networks/unet.json']" --dataset_dir demo/patients $(HERE)
	$(RUN) evaluating --config_file "['$(CONFIGS)/train.json',$(SMALL),'$(CONFIGS)/evaluate.json']" --dataset_dir demo/patients $(HERE)
	$(BIN)/hmf simulate demo/new_patient --subjects 1 --seed 2 --spacing 2
	$(BIN)/hmf check demo/new_patient
	$(BIN)/hmf synthesize demo/new_patient demo/synthetic --target t2 --weights demo/run/models/model.pt
	$(BIN)/hmf picture T1=$(SCAN)-t1n.nii.gz FLAIR=$(SCAN)-t2f.nii.gz \
		"synthetic T2=$(MADE)" "true T2=$(SCAN)-t2w.nii.gz" --output demo/demo.png
	@echo "Written: $(MADE) and demo/demo.png; scores: demo/run/scores.csv"

test: .venv
	$(BIN)/python -m pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo build *.egg-info

.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,test]"
	@touch .venv
