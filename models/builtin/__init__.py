"""Making of the built-in model: knowledge, corpus, tokenizer, training, GGUF, evaluation."""
