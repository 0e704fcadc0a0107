import math

import pytest
from hmf_networks.reports.comparison import compare_runs, format_comparisons, holm, signed_rank_p
from hmf_networks.reports.table import METRICS


def rows(method: str, psnrs: list[float], **others) -> list[dict]:
    fixed = {"method": method, "protocol": "volume", "region": "brain"} | others
    return [fixed | {"subject": f"{number:02}", "psnr": psnr} for number, psnr in enumerate(psnrs)]


OURS = [31.0, 32, 33, 34, 35, 30]
THEIRS = [30.0, 30, 30, 30, 30, 36]  # differences 1, 2, 3, 4, 5, -6


def test_the_signed_rank_test_agrees_with_counting_by_hand():
    """Of 64 ways to give signs to the ranks 1 .. 6, 14 have a negative sum of at most 6: p = 2 * 14 / 64."""
    assert signed_rank_p([1, 2, 3, 4, 5, -6]) == pytest.approx(28 / 64)


def test_six_wins_out_of_six_are_the_smallest_p_of_six():
    assert signed_rank_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert signed_rank_p([-1, -2, -3, -4, -5, -6]) == pytest.approx(2 / 64)


def test_runs_that_do_not_differ_have_a_p_of_one():
    assert signed_rank_p([0.0] * 8) == 1


def test_subjects_without_a_difference_do_not_count():
    assert signed_rank_p([0, 1, 2, 3, 4, 5, 6]) == signed_rank_p([1, 2, 3, 4, 5, 6])


def test_holm_agrees_with_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("p_values", [[], [0.2], [0.5, 0.5, 0.5], [0.9, 0.001, 0.04, 0.04, 0.3]])
def test_holm_is_monotone_never_below_the_raw_p_and_never_above_one(p_values):
    adjusted = holm(p_values)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(p_values, adjusted, strict=True))
    ordered = [corrected for _, corrected in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_a_comparison_holds_the_median_difference_and_both_p_values():
    (comparison,) = compare_runs(rows("ours", OURS) + rows("theirs", THEIRS), "ours", ["theirs"])
    assert comparison["num_subjects"] == 6
    assert comparison["median_difference"] == 2.5
    assert comparison["p"] == comparison["p_holm"] == pytest.approx(28 / 64)


def test_only_subjects_that_both_runs_have_are_compared():
    more = rows("ours", [*OURS, 99.0, math.nan]) + rows("theirs", [*THEIRS, math.nan])
    fewer = rows("ours", OURS) + rows("theirs", THEIRS)
    assert compare_runs(more, "ours", ["theirs"]) == compare_runs(fewer, "ours", ["theirs"])


def test_sessions_that_both_have_are_averaged_per_patient():
    first = rows("ours", OURS, session="1") + rows("theirs", THEIRS, session="1")
    second = rows("ours", [psnr + 2 for psnr in OURS], session="2") + rows("theirs", THEIRS, session="2")
    (both,) = compare_runs(first + second, "ours", ["theirs"])
    assert (both["num_subjects"], both["median_difference"]) == (6, 3.5)
    unpaired = rows("theirs", [99.0] * 6, session="3")
    assert compare_runs(first + unpaired, "ours", ["theirs"]) == compare_runs(first, "ours", ["theirs"])


def test_protocols_regions_metrics_and_runs_are_compared_apart_and_corrected_together():
    everything = [
        row | dict.fromkeys(METRICS, row["psnr"])
        for method, psnrs in (("ours", OURS), ("theirs", THEIRS), ("others", THEIRS))
        for place in ({"region": "brain"}, {"region": "whole"}, {"protocol": "slice"})
        for row in rows(method, psnrs, **place)
    ]
    comparisons = compare_runs(everything, "ours", ["theirs", "others"])
    assert len(comparisons) == 2 * 3 * len(METRICS)
    assert len({tuple(c[k] for k in ("against", "protocol", "region", "metric")) for c in comparisons}) == 30
    assert {comparison["p_holm"] for comparison in comparisons} == {1.0}  # 30 * 0.4375


def test_with_too_few_subjects_the_table_says_so_instead_of_a_p_value():
    few = compare_runs(rows("ours", OURS[:5]) + rows("theirs", THEIRS[:5]), "ours", ["theirs"])
    assert few[0]["p"] is few[0]["p_holm"] is None
    table = format_comparisons(few)
    assert "too few: 6 subjects are needed for a p value" in table
    assert "|  5 |             3.000 | too few | too few |" in table


def test_the_table_names_protocol_region_metric_and_both_runs():
    table = format_comparisons(compare_runs(rows("ours", OURS) + rows("a|b", THEIRS), "ours", ["a|b"]))
    assert table.startswith("Paired comparison, ours minus the other: positive is better for PSNR")
    assert "all 1 tests" in table
    assert table.endswith("| a\\|b    | volume   | brain  | PSNR dB |  6 |             2.500 | 0.4375 | 0.4375 |\n")


def test_runs_without_a_common_subject_are_no_table():
    nothing = compare_runs(rows("ours", OURS), "ours", ["theirs"])
    assert nothing == []
    assert "no subject in common" in format_comparisons(nothing)


def test_two_perfect_scores_are_equal_and_one_is_the_largest_difference():
    perfect = [math.inf] * 2 + OURS[2:]
    (comparison,) = compare_runs(rows("a", perfect) + rows("b", [math.inf, *THEIRS[1:]]), "a", ["b"])
    assert comparison["median_difference"] == 3.5  # of 0, inf, 3, 4, 5, -6
    assert comparison["p"] == pytest.approx(signed_rank_p([7, 3, 4, 5, -6]))
