"""Speech: corpora, encoder frames, greedy decoding and word error rates."""
