"""API keys and principals: the caller of a request.

keyring.py         API keys in memory; changes are polled every `keys_refresh_s`
api_keys.py        new API keys, the hash by which one is found, the default project
key_admin.py       keys created and revoked by the command line
principal.py       key, project and user of a request
policy.py          permissions and limits of all projects
resource_kinds.py  kinds of administered records
named_models.py    models that a body names
"""
