"""Azure's URLs: deployments in the path, an API version in the query (pure)."""

# Operations that run a model; Azure finds it by the path and not by the body.
_DEPLOYED = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/audio/",
    "/images/generations",
    "/images/edits",
)


def azure_path(path: str, deployment: str | None) -> str:
    """Converts OpenAI's path, percent-encoded and without `/v1`, to Azure's."""
    is_deployed = any(path == one or (one[-1] == "/" and path.startswith(one)) for one in _DEPLOYED)
    if not is_deployed or deployment is None:
        return f"/openai{path}"
    return f"/openai/deployments/{deployment}{path}"


def azure_query(query: str, api_version: str | None) -> str:
    """Adds the API version to the query, unless the client has chosen one."""
    words = [word for word in query.split("&") if word]
    if api_version and not any(word.startswith("api-version=") for word in words):
        words.append(f"api-version={api_version}")
    return "&".join(words)
