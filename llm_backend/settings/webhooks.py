"""Settings of webhooks: hosts, number and pace of deliveries."""

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Names


class WebhooksSettings(BaseModel):
    """Endpoints of webhooks, and deliveries of events to them."""

    webhook_hosts: Names = Field(
        (),
        description="Hosts that webhooks may reach at internal addresses, without TLS or at "
        "other ports than 443: `HOST` (ports 80 and 443) or `HOST:PORT`. Others need https and "
        "public addresses.",
    )
    webhook_endpoints_limit: int = Field(
        20, ge=0, description="Maximum number of webhook endpoints of a project; 0 allows none."
    )
    webhook_waiting_limit: int = Field(
        1000,
        ge=1,
        description="Maximum number of events that wait for one webhook endpoint; more are "
        "recorded as failures.",
    )
    webhook_concurrency: int = Field(
        16, ge=1, description="Events that one process sends to webhook endpoints concurrently."
    )
    webhook_endpoint_concurrency: int = Field(
        4,
        ge=1,
        description="Events that are sent to one webhook endpoint concurrently, so that a slow one "
        "leaves capacity to others.",
    )
    webhook_project_concurrency: int = Field(
        8,
        ge=1,
        description="Events that are sent to all webhook endpoints of one project concurrently, so "
        "that slow ones leave capacity to other projects.",
    )
    webhook_timeout_s: float = Field(
        10, gt=0, description="Timeout in seconds for the answer of a webhook endpoint."
    )
