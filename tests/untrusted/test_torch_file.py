from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.untrusted.torch_file import (
    ForeignObjectError,
    StoredTensor,
    TorchFileError,
    check_records,
    load_tensors,
    read_index,
)
from faults.hostile_weights import records, zipped


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Saves anything with torch."""

    def save(content: Any) -> Path:
        torch.save(content, tmp_path / "a.pt")
        return tmp_path / "a.pt"

    return save


def test_the_index_has_the_names_types_and_shapes_of_torchs_tensors(saved: Any) -> None:
    whole = torch.arange(12, dtype=torch.float32)
    content = {
        "whole": whole, "view": whole.reshape(3, 4)[1:, ::2], "scalar": torch.tensor(1.0), "none": torch.zeros(0, 3),
        "half": torch.zeros(2, dtype=torch.float16), "bfloat": torch.zeros(2, dtype=torch.bfloat16),
        "double": torch.zeros(2, dtype=torch.float64), "long": torch.zeros(2, dtype=torch.int64),
        "bool": torch.zeros(2, dtype=torch.bool), "parameter": torch.nn.Parameter(torch.zeros(5)),
    }  # fmt: skip
    index = read_index(saved(content))
    assert index.keys() == content.keys()
    for key, value in content.items():
        assert index[key].shape == tuple(value.shape)
        assert index[key].is_float == value.is_floating_point()
        assert index[key].byte_count == value.numel() * value.element_size()
    assert index["whole"].record == index["view"].record != index["scalar"].record
    check_records(saved(content), list(index.values()))


def test_what_lies_beside_tensors_is_kept(saved: Any) -> None:
    content = {"model": torch.nn.Linear(2, 3).state_dict(), "n": 3, "x": [1.5, None, True, "a", (1, 2)]}
    index = read_index(saved(content))
    assert index["model"]["weight"] == StoredTensor("FloatStorage", (3, 2), "data/0")
    assert {key: value for key, value in index.items() if key != "model"} == {
        key: value for key, value in content.items() if key != "model"
    }


def test_an_embedded_file_is_read_without_torch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    weights = tiny_checkpoint.parents[1] / "lstm-transducer" / "checkpoint" / "pretrained.pt"
    script = (
        "import sys\nfrom pathlib import Path\nfrom artifacts.untrusted.torch_file import check_records, read_index\n"
        f"path = Path({str(weights)!r})\ntensors = read_index(path)['model']\n"
        "check_records(path, list(tensors.values()))\nprint(len(tensors), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(torch.load(weights, weights_only=True)["model"])), "False"]


@pytest.mark.parametrize("content", [print, Path("a"), torch.nn.Linear(1, 1), torch.zeros(2).to_sparse(), complex(1)])
def test_an_object_that_is_not_a_tensor_is_refused(content: Any, saved: Any) -> None:
    with pytest.raises(ForeignObjectError, match=r"^contains a '.*', which is not a tensor$"):
        read_index(saved({"x": content}))


def test_only_the_records_of_the_given_tensors_are_read(saved: Any) -> None:
    path = saved({"a": torch.zeros(1000), "b": torch.ones(1000)})
    index = read_index(path)
    damaged = path.read_bytes().replace(b"\0\0\x80?" * 500, b"\0\0\x80@" * 500, 1)
    path.write_bytes(damaged)
    check_records(path, [index["a"]])
    with pytest.raises(TorchFileError, match="record 'data/1' is damaged"):
        check_records(path, list(index.values()))


def test_views_may_share_a_storage_but_not_swell(saved: Any) -> None:
    bias = torch.zeros(100)
    path = saved({str(number): bias for number in range(10)})
    check_records(path, list(read_index(path).values()))
    path = saved({"a": torch.zeros(1).expand(1_000_000)})
    with pytest.raises(TorchFileError, match="the tensors have 4000000 bytes of values, the file has "):
        check_records(path, list(read_index(path).values()))


@pytest.mark.parametrize("cut", range(0, 2200, 97))
def test_a_file_that_is_cut_is_refused(cut: int, saved: Any) -> None:
    path = saved({"a": torch.zeros(200)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TorchFileError):
        read_index(path)


def test_no_flipped_byte_ends_in_another_error(saved: Any) -> None:
    path = saved({"a": torch.zeros(50), "b": torch.ones(2, 3)})
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(TorchFileError):
            check_records(path, list(read_index(path).values()))
            continue
        refused += 1
    assert refused > 120


def test_a_zip_of_another_writer_is_read_alike(saved: Any) -> None:
    path = saved({"a": torch.zeros(3)})
    index = read_index(path)
    path.write_bytes(zipped(records(path.read_bytes())))
    assert read_index(path) == index


def test_torch_loads_what_the_index_says(saved: Any) -> None:
    path = saved({"a": torch.arange(6.0).reshape(2, 3)})
    assert read_index(path)["a"].shape == (2, 3)
    assert torch.equal(load_tensors(path)["a"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "text",
    [
        b"\x80\x02ccollections\nOrderedDict\n)RK\x03b.",
        b"\x80\x02X\x01\0\0\0aX\x01\0\0\0ba.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n}\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0)))tR.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpuJ\xff\xff\xff\xfftQ.",
    ],
)
def test_a_pickle_that_torch_reads_otherwise_ends_in_the_same_error(text: bytes, saved: Any) -> None:
    path = saved({})
    found = records(path.read_bytes())
    path.write_bytes(zipped({name: text if name.endswith("data.pkl") else held for name, held in found.items()}))
    with pytest.raises(TorchFileError):
        load_tensors(path)
    with contextlib.suppress(TorchFileError):
        assert not isinstance(read_index(path), StoredTensor)


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"
    b"K\0%bK\1\x85\x89ccollections\nOrderedDict\n)RtR"
)
NAMED = b"\x80\2}X\1\0\0\0w%bs."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # It is torch's `set_` that takes them: the tensor would be another than the one that was checked.
        (NAMED % (TENSOR % b"K\4\x85" + b"}(X\5\0\0\0shapeK\1\x85ub"), "attributes to what is not a dictionary"),
        (NAMED % (TENSOR % (b")" + b"\x85" * 3000)), "a shape that is not of whole numbers"),
        (NAMED % (TENSOR % b"}K\4Ns"), "not described as torch does"),
    ],
)
def test_a_tensor_is_what_it_was_when_it_was_checked(text: bytes, told: str, saved: Any) -> None:
    path = saved({"w": torch.zeros(4)})
    path.write_bytes(zipped({"a/data.pkl": text, "a/data/0": bytes(16), "a/version": b"3\n"}))
    with pytest.raises(TorchFileError, match=told):
        read_index(path)


def test_a_tensor_of_that_kind_is_read(saved: Any) -> None:
    path = saved({"w": torch.zeros(4)})
    path.write_bytes(zipped({"a/data.pkl": NAMED % (TENSOR % b"K\4\x85"), "a/data/0": bytes(16)}))
    assert read_index(path) == {"w": StoredTensor("FloatStorage", (4,), "data/0")}
