from collections import Counter

import pytest
import torch
from hmf_networks.naming import CONTRASTS
from hmf_networks.ops.availability import wanted_targets
from hmf_networks.transforms.modality_dropout import ModalityDropoutd
from monai.data import list_data_collate

MISSING_PD = torch.tensor([True, True, True, True, False])


def sample(there: torch.Tensor, **more: torch.Tensor) -> dict:
    planes = torch.rand(5, 4, 6)
    planes[~there] = -1.0
    return {"image": planes, **more}


def draws(data: dict, num: int = 200, **options) -> list[dict]:
    dropout = ModalityDropoutd("image", num_samples=num, **options)
    dropout.set_random_state(seed=0)
    return dropout(data)


def test_what_is_given_comes_with_its_mask_and_what_is_not_is_background():
    data = sample(MISSING_PD)
    for drawn in draws(data):
        image, masks = drawn["image"][:5], drawn["image"][5:, 0, 0] > 0
        assert drawn["image"].shape == (10, 4, 6)
        assert (drawn["image"][5:].amax((1, 2)) == drawn["image"][5:].amin((1, 2))).all()
        assert torch.equal(image[masks], data["image"][masks])
        assert (image[~masks] == -1).all()


def test_the_contrast_to_be_found_is_never_given_and_something_always_is():
    for there in (MISSING_PD, torch.tensor([True, False, True, False, False])):
        for drawn in draws(sample(there)):
            given = drawn["image"][5:, 0, 0] > 0
            target = CONTRASTS.index(drawn["target"])
            assert not given[target]
            assert given.any()
            assert there[target]
            assert not (given & ~there).any()


def test_every_contrast_that_is_there_is_asked_for_and_given_at_times():
    drawn = draws(sample(MISSING_PD), num=400)
    asked = Counter(d["target"] for d in drawn)
    given = Counter(int(n) for d in drawn for n in torch.nonzero(d["image"][5:, 0, 0] > 0))
    subsets = {tuple((d["image"][5:, 0, 0] > 0).tolist()) for d in drawn}
    assert asked.keys() == {"t1", "t1c", "t2", "flair"}
    assert asked["t1c"] < asked["t1"]  # half the weight
    assert given.keys() == {0, 1, 2, 3}
    assert len(subsets) == 2**4 - 2  # every proper subset of four


def test_the_label_is_what_was_there_before_or_what_came_with_the_sample():
    data = sample(MISSING_PD)
    assert torch.equal(draws(data, num=1)[0]["label"], data["image"])
    truth = torch.rand(5, 8, 12)
    drawn = draws(sample(MISSING_PD, label=truth), num=100)
    assert torch.equal(drawn[0]["label"], truth)
    assert "pd" in {d["target"] for d in drawn}  # simulated labels have what no scan has


def test_only_one_contrast_is_left_to_learn_where_it_is_so_asked():
    for drawn in draws(sample(MISSING_PD), num=20, only=True):
        wanted = wanted_targets(drawn["image"][None], drawn["label"][None], num_masks=5)[0]
        assert [CONTRASTS[i] for i in torch.nonzero(wanted).flatten()] == [drawn["target"]]


def test_several_draws_of_a_slice_become_one_batch():
    batch = list_data_collate([draws(sample(MISSING_PD), num=2) for _ in range(3)])
    assert batch["image"].shape == (6, 10, 4, 6)


def test_a_single_contrast_teaches_nothing():
    with pytest.raises(ValueError, match="nothing to find"):
        draws(sample(torch.tensor([True, False, False, False, False])), num=1)


def test_one_state_gives_one_draw():
    data = sample(MISSING_PD)
    first, second = draws(data, num=5), draws(data, num=5)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
