"""Stream events of responses, and the response object built from them."""
