"""Kinds of administered records, as stored in the database."""

PROJECT = "project"
SERVICE_ACCOUNT = "service_account"
USER = "user"
MEMBER = "project_user"
INVITE = "invite"
RATE_LIMIT = "rate_limit"
MODEL_PERMISSIONS = "model_permissions"
HOSTED_TOOLS = "hosted_tool_permissions"
SPEND_LIMIT = "spend_limit"
SPEND_ALERT = "spend_alert"
DATA_RETENTION = "data_retention"

DECIDING = (
    PROJECT,
    USER,
    RATE_LIMIT,
    MODEL_PERMISSIONS,
    HOSTED_TOOLS,
    SPEND_LIMIT,
    SPEND_ALERT,
    DATA_RETENTION,
)
"""The kinds that affect requests; every process keeps their records in memory."""
