# Two commands for everyone: `make demo` shows it at work, `make test` proves it. Both make their own .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m monai.bundle run
CONFIGS := bundle/configs
SMALL := '$(CONFIGS)/tasks/brats_t1_flair_to_t2.json','$(CONFIGS)/networks/quickstart.json','$(CONFIGS)/quickstart.json'
HERE := --bundle_root bundle --output_dir demo/run
SCAN := demo/new_patient/BraTS-SIM-00001-000/BraTS-SIM-00001-000
MADE := demo/synthetic/BraTS-SIM-00001_000/BraTS-SIM-00001_000_t2_synth.nii.gz

.PHONY: demo test lint clean weights clients transcript

# How the shipped weights are made again: label maps and patients as docs/data.md tells; started again it goes on.
LABELS ?= label_maps
PATIENTS ?= patients
PROCESSES ?= 2
BATCH ?= 2
TRAIN := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node $(PROCESSES) -m monai.bundle run training --bundle_root bundle \
	--labels_dir $(LABELS) --validation_size '[160,192]' --adversarial_weight 0.0 --query_grid_share 0.8 --batch_size $(BATCH) \
	--val_interval 2 --patience 100
SIMULATED := runs/simulated
FIRST := $(TRAIN) --config_file "['$(CONFIGS)/train.json','$(CONFIGS)/simulated.json','$(CONFIGS)/multi_gpu_train.json']" \
	--output_dir $(SIMULATED) --plane_size '[112,128]' --validation_slices 24 --learning_rate 0.001 --flat_epochs 24 --decay_epochs 7
THEN := $(TRAIN) --config_file "['$(CONFIGS)/train.json','$(CONFIGS)/simulated.json','$(CONFIGS)/fine_tune.json','$(CONFIGS)/multi_gpu_train.json']" \
	--dataset_dir $(PATIENTS) --initial_weights $(SIMULATED)/models/model.pt --half_precision_weights True --plane_size '[128,160]' \
	--real_slices 12 --slices_per_map 6 --validation_slices 8 --learning_rate 0.0005 --flat_epochs 4 --decay_epochs 4 --train\#trainer\#max_epochs 4
GOES_ON = $$(test $(1)/models/last.pt -nt $(2) && echo --resume True)
WITHOUT = --output_dir runs/without_$(1) --validation_patients "['$(1)']" $(call GOES_ON,runs/without_$(1),$(SIMULATED)/models/model.pt)

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

weights: .venv
	$(FIRST) $$(test -e $(SIMULATED)/models/last.pt && echo --resume True)
	$(THEN) --training_patients "['lg01','lg03']" $(call WITHOUT,cs07)
	$(THEN) --training_patients "['cs07','lg03']" $(call WITHOUT,lg01)
	$(THEN) --training_patients "['cs07','lg01']" $(call WITHOUT,lg03)
	$(THEN) --output_dir runs/final $(call GOES_ON,runs/final,$(SIMULATED)/models/model.pt)
	$(BIN)/python benchmarks/calibrate.py fit --weights runs/final/models/model.pt --bids $(PATIENTS) --patients cs07 lg01 lg03 \
		--labels $(LABELS) --maps 15 16 17 --pair runs/without_cs07/models/model.pt cs07 \
		--pair runs/without_lg01/models/model.pt lg01 --pair runs/without_lg03/models/model.pt lg03

test: .venv
	$(BIN)/python -m pytest

# Those who use the bundle from outside: the zoo, strangers, MONAI Label, in environments of their own (minutes, some GB).
clients: .venv
	$(BIN)/python tests/clients/model_zoo.py
	$(BIN)/python tests/clients/installed.py
	$(BIN)/python tests/clients/tracking.py
	$(BIN)/python tests/clients/monai_label.py

# docs/transcript.md: README and tutorial as a newcomer pastes them, in a fresh clone (half an hour).
transcript: .venv
	$(BIN)/python tests/clients/transcript.py

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
