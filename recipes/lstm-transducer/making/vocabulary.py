"""Train the SentencePiece BPE vocabulary with icefall's special tokens, and write `tokens.txt` beside it."""

from __future__ import annotations

import io
from pathlib import Path

import beside  # noqa: F401  # finds the modules of recipes/tiny/making
import sentencepiece
import sentences
from tokenizer import PIECES, SENTENCES


def write_vocabulary(folder: Path) -> None:
    """Write `bpe.model` and `tokens.txt` (`piece id` a line); always the same bytes.

    `<blk>` is 0, `<sos/eos>` 1 and `<unk>` 2, as icefall and sherpa-ncnn have them.
    """
    trained = io.BytesIO()  # not a file: sentencepiece would write the file's path into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences.draw("train", SENTENCES, seed=0)),
        model_writer=trained,
        vocab_size=PIECES,
        model_type="bpe",
        character_coverage=1.0,
        user_defined_symbols=["<blk>", "<sos/eos>"],
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.model").write_bytes(trained.getvalue())
    lines = [f"{processor.id_to_piece(index)} {index}\n" for index in range(processor.get_piece_size())]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
