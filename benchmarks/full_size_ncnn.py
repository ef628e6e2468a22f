"""Build icefall's LSTM transducer at full size for ncnn, with random weights, and compare the file sizes with those in
icefall's and sherpa-ncnn's documentation.

    python benchmarks/full_size_ncnn.py               # some three minutes; needs 3 GB of memory and 2 GB of disk

The architecture determines the sizes: a layer that is missing, stored twice or in another type would show. Sizes say
nothing about the outputs. The published int8 encoder is left out: its 218 MB are those of a tool that keeps the LSTM in
float32, without the projections of its cells.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).with_name("full_size_ncnn.json")
CALIBRATION = Path(__file__).parents[1] / "embedded" / "tiny" / "calibration"
VOCAB_SIZE = 500
PUBLISHED = {
    "encoder fp32": "317M",
    "encoder fp16": "159M",
    "decoder fp16": "503K",
    "joiner fp32": "3.0M",
    "joiner fp16": "1.5M",
    "joiner int8": "774K",
}
"""As `ls -lh` shows them there."""
UNITS = {"K": 2**10, "M": 2**20}


def build(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The parameters of each network, and the bytes of each form's weights."""
    import torch

    from artifacts.icefall.lstm_transducer import Config, LstmTransducer
    from artifacts.steps import calibrate_sherpa_ncnn, convert_pnnx, quantize_ncnn_int8, trace_icefall

    torch.manual_seed(0)
    model = LstmTransducer(Config(vocab_size=VOCAB_SIZE)).eval()
    counts = {
        name: sum(each.numel() for each in part.parameters())
        for name, part in (("encoder", model.encoder), ("decoder", model.decoder), ("joiner", model.joiner))
    }
    torch.save(model.state_dict(), folder / "random.pt")
    del model

    def make(name: str, step: Callable[[Path], object]) -> Path:
        out = folder / name
        out.mkdir()
        step(out)
        print(name, flush=True)
        return out

    def trace(part: str) -> Callable[[Path], object]:
        params = trace_icefall.Params.model_validate({"part": part})
        return lambda out: trace_icefall.run(out, params, checkpoint=folder / "random.pt")

    def convert(part: str, fp16: bool) -> Callable[[Path], object]:
        params = convert_pnnx.Params(fp16=fp16)
        return lambda out: convert_pnnx.run(out, params, traced=folder / f"traced {part}")

    nets = {}
    for part, called in (("encoder", "encoder"), ("predictor", "decoder"), ("joint", "joiner")):
        make(f"traced {part}", trace(part))
        for form in ("fp32", "fp16"):
            nets[f"{called} {form}"] = make(f"{called} {form}", convert(part, form == "fp16"))

    int8, scales = quantize_ncnn_int8.Params(), calibrate_sherpa_ncnn.Params(slices=("clean",))
    nets["encoder int8"] = make(
        "encoder int8", lambda out: quantize_ncnn_int8.run(out, int8, model=nets["encoder fp32"])
    )
    encoder, decoder, joiner = (nets[f"{name} fp32"] for name in counts)
    table = make(
        "table",
        lambda out: calibrate_sherpa_ncnn.run(
            out, scales, encoder=encoder, predictor=decoder, joint=joiner, corpus=CALIBRATION
        ),
    )
    nets["joiner int8"] = make("joiner int8", lambda out: quantize_ncnn_int8.run(out, int8, model=joiner, table=table))
    return counts, {name: next(net.glob("*.bin")).stat().st_size for name, net in nets.items()}


def as_listed(nbytes: int) -> str:
    """As `ls -lh` shows a size: rounded up, with a digit behind the point below ten."""
    unit = "M" if nbytes >= UNITS["M"] else "K"
    size = nbytes / UNITS[unit]
    return f"{-(-nbytes * 10 // UNITS[unit]) / 10:.1f}{unit}" if size < 10 else f"{-(-nbytes // UNITS[unit])}{unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work (the system's temporary folder)")
    parser.add_argument("--date", help="kept with the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        parameters, sizes = build(Path(folder))
    results = {"date": arguments.date, "parameters": parameters, "bytes": sizes}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("\n| file | bytes | listed | published |\n| --- | --- | --- | --- |")
    for name, nbytes in sizes.items():
        print(f"| {name} | {nbytes:,} | {as_listed(nbytes)} | {PUBLISHED.get(name, '')} |")


if __name__ == "__main__":
    main()
