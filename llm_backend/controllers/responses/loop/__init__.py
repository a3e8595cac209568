"""Tool loop of responses: rounds of the model and the tools that the server runs."""
