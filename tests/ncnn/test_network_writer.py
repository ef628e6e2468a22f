from __future__ import annotations

import shutil
from pathlib import Path

from artifacts.ncnn.network_writer import copy_others, network_bytes, write_network
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.runtime import find_net
from artifacts.ncnn.weights_file import read_weights
from ncnn_conversions import Pieces


def test_a_network_is_written_under_its_name_with_what_lies_beside_it(pieces: Pieces, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(pieces.folder("joint"), folder)
    (folder / "inputs.json").write_text("{}")
    (folder / "notes").mkdir()
    out.mkdir()
    param, weights_path = find_net(folder)
    file = read_param(param)
    weights = read_weights(file, weights_path)
    written = write_network(((layer, weights[layer.name]) for layer in file.layers), param, out)
    assert written == out / "joint.ncnn.param"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()
    }
    assert network_bytes(written) == sum(path.stat().st_size for path in out.iterdir()) - 2


def test_the_networks_own_files_are_not_copied(pieces: Pieces, tmp_path: Path) -> None:
    copy_others(find_net(pieces.folder("joint"))[0], tmp_path)
    assert not list(tmp_path.iterdir())
