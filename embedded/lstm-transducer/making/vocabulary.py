"""Write the BPE vocabulary with icefall's special tokens, and `tokens.txt` beside it."""

from __future__ import annotations

from pathlib import Path

import beside  # noqa: F401  # finds the modules of embedded/tiny/making
import sentencepiece
from tokenizer import train_pieces


def write_vocabulary(folder: Path) -> None:
    """Write `bpe.model` and `tokens.txt` (`piece id` a line); always the same bytes.

    `<blk>` is 0, `<sos/eos>` 1 and `<unk>` 2, as icefall and sherpa-ncnn have them.
    """
    trained = train_pieces(unk_id=2, symbols=["<blk>", "<sos/eos>"])
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.model").write_bytes(trained)
    lines = [f"{processor.id_to_piece(index)} {index}\n" for index in range(processor.get_piece_size())]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
