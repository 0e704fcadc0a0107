"""`benchmarks/volume.py --weights`: a process of `hmf synthesize`, timed from start to end."""

import json
import sys
from pathlib import Path

import pytest
from hmf_networks.hashing import file_hash
from hmf_networks.reports.card_table import card_table

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_a_cold_start_is_timed_and_becomes_a_table_of_the_card(monkeypatch, tmp_path, any_weights):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cold_start
    import volume

    monkeypatch.setattr(cold_start, "SHAPE", (24, 24, 16))
    path = tmp_path / "volume.json"
    words = ["volume.py", "--weights", any_weights, "--sources", "t1", "flair", "--json", path]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    volume.main()

    found = json.loads(path.read_text())
    assert found["rows"]["hmf synthesize"]["seconds"] > 1
    assert found["rows"]["hmf synthesize"]["peak MB"] > 100
    assert found["settings"]["weights_sha256"] == file_hash(any_weights)
    assert "t1+flair to what is missing" in card_table(found, "speed")
