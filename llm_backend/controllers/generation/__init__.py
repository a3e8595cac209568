"""Request bodies as generation requests: messages, tools, sampling and structured output."""
