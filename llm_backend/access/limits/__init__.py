"""Rate limits, concurrency limits and the fair queue that hold every metered request."""
