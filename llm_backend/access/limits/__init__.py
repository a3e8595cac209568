"""Rate limits, concurrency limits and the fair queue that each metered request passes."""
