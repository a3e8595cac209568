"""What pages of other sites make a browser ask by GET, which no preflight holds back."""

from llm_backend import errors
from llm_backend.contract.request import Request

__all__ = ["refuse_other_sites"]


def refuse_other_sites(request: Request) -> None:
    """Raises `Forbidden` for what a page of somebody else's asks: it cannot read the answer, but
    that is made nevertheless. Browsers say whose page it is."""
    if request.http.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise errors.Forbidden("Pages of other sites do not ask here; use POST from your own.")
