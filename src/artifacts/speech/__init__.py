"""Speech: corpora, features, greedy decoding and word error rates."""
