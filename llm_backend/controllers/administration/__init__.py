"""Organization administration: projects, keys, users, limits, usage.

projects.py           projects
project_users.py      users of a project
project_api_keys.py   API keys of a project
service_accounts.py   service accounts and their keys
admin_api_keys.py     keys that authorize administration
users.py              users of the organization
invites.py            invites of users
rate_limits.py        rate limits of a project, by model
spend_limits.py       spend limits
spend_alerts.py       spend alerts
model_permissions.py  models that a project may use
hosted_tools.py       hosted tools that a project may use
data_retention.py     zero data retention
usage.py              usage and costs in time buckets
usage_query.py        time buckets, filters and pages of usage queries
audit_logs.py         administrative changes and their actors
records/              shared parts: changes, lists, settings, key objects
"""
