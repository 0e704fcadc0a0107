"""What a user of `python -m monai.bundle run` reads when something is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hmf_networks.engines.bundle_run import _is_ours, check_options
from hmf_networks.naming import output_path

CONFIGS = Path(__file__).parent.parent / "bundle" / "configs"
TRAIN = ["--config_file", f"['{CONFIGS}/train.json','{CONFIGS}/evaluate.json']"]


def test_options_of_monai_and_of_every_config_file_are_known():
    check_options(["evaluating", *TRAIN, "--run_id=x", "--meta_file", "m.json", "--bundle_root", "bundle"])
    check_options([*TRAIN, "--network_def#width", "4", "--train::trainer::amp=True", "--evaluated_part", "testing"])


@pytest.mark.parametrize(
    ("option", "meant"),
    [("--dataset_dirr", "--dataset_dir"), ("--plain=axial", "--plane"), ("--networkdef#width", "--network_def")],
)
def test_a_misspelt_option_is_answered_with_the_one_that_was_meant(option, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        check_options([*TRAIN, option, "1"])


def test_options_are_not_judged_by_files_that_are_named_elsewhere():
    check_options(["training", "--args_file", "args.json", "--whatever", "1"])
    check_options(["training", "--config_file", "absent.json", "--whatever", "1"])


def test_an_error_raised_for_users_is_told_from_a_bug():
    errors: list[Exception] = []
    for work in (lambda: output_path({"patient": "a"}, "flare"), lambda: output_path({}, "t1")):
        try:
            work()
        except (ValueError, KeyError) as error:
            errors.append(error)
    raised, bug = errors
    assert _is_ours(raised)
    assert not _is_ours(bug)


def run(*arguments: str, **environment: str) -> list[str]:
    """Lines of standard error of a failing inference."""
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", f"{CONFIGS}/inference.json"]
    done = subprocess.run(
        [*command, "--bundle_root", str(CONFIGS.parent), "--network_def#width", "4", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()


def test_a_failing_run_ends_in_one_line_with_the_cause_and_the_cure(tmp_path):
    lines = run("--dataset_dir", str(tmp_path))
    assert lines[-1].startswith(f"error: no subject in dataset_dir {tmp_path}: looked for t1, t1c, t2")
    assert not any("Traceback" in line for line in lines)


def test_the_traceback_is_there_for_who_asks(tmp_path):
    lines = run("--dataset_dir", str(tmp_path / "absent"), HMF_TRACEBACK="1")
    assert any("Traceback" in line for line in lines)
    assert lines[-1].endswith("absent does not exist; give the folder of your subjects")
