"""Train SentencePiece BPE pieces on the training sentences, and write them as NeMo has them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import sentences

PIECES = 128
SENTENCES = 20_000


def train_pieces(unk_id: int, symbols: Sequence[str] = ()) -> bytes:
    """A SentencePiece model of 128 pieces; always the same bytes.

    `<unk>` has `unk_id`, the `symbols` the lowest ids beside it. There is no start, end or padding piece.
    """
    trained = io.BytesIO()  # not a file: sentencepiece would write the file's path into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences.draw("train", SENTENCES, seed=0)),
        model_writer=trained,
        vocab_size=PIECES,
        model_type="bpe",
        character_coverage=1.0,
        user_defined_symbols=list(symbols),
        unk_id=unk_id,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return trained.getvalue()


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.model, tokenizer.vocab and vocab.txt, as NeMo's tokenizer folder has them; always the same bytes.

    `<unk>` has id 0; a transducer adds its own blank behind the last piece.
    """
    trained = train_pieces(unk_id=0)
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained)
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    scores = [processor.get_score(index) for index in range(processor.get_piece_size())]
    words = [piece[1:] if piece.startswith("▁") else f"##{piece}" for piece in pieces[1:]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(trained)
    scored = [f"{piece}\t{score:g}" for piece, score in zip(pieces, scores, strict=True)]
    (folder / "tokenizer.vocab").write_text("\n".join(scored) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
