"""How the built-in model is made: knowledge, corpus, tokenizer, training, GGUF, evaluation."""
