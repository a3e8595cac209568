"""Stream events of responses, and the response that they add up to."""
