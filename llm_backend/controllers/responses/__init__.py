"""Responses API: responses of local models, stored and continued, or relayed."""
