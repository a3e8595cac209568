"""`python -m llm_backend` is `llm-backend`."""

from llm_backend.cli import main

main()
