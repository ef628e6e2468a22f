from __future__ import annotations

import torch

from artifacts.model.network import Network, shape_of


def _network() -> Network:
    return Network(
        {"x": ("batch", 3, "frames"), "length": ("batch",), "y": ("batch", "tokens")}, {"z": ("batch", "tokens", 5)}
    )


def test_axes_are_those_of_the_inputs_once_each() -> None:
    assert _network().axes == ["batch", "frames", "tokens"]


def test_a_sample_has_the_sizes_asked_for_and_is_the_same_for_the_same_seed() -> None:
    sizes = {"batch": 2, "frames": 7, "tokens": 4}
    first, again, other = (_network().sample(sizes, seed=seed) for seed in (0, 0, 1))
    assert [tuple(value.shape) for value in first] == [(2, 3, 7), (2,), (2, 4)]
    assert all(torch.equal(value, same) for value, same in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_fixed_dimension_is_taken_as_it_is() -> None:
    assert shape_of((2, "frames", 128), {"frames": 9, "tokens": 1}) == (2, 9, 128)


def test_a_network_is_in_evaluation_mode_from_the_start() -> None:
    assert not _network().training
