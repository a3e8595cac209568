"""Costs of usage (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_backend.settings.access import Price
from llm_backend.store.administration import UsageSum

TOKENS_PRICED = 1_000_000  # tokens that a price is for


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One line item of a model's costs; `unit` is what `quantity` counts."""

    line_item: str
    dollars: float
    quantity: int
    unit: str = "tokens"


def costs_of(used: UsageSum, model: str, prices: Mapping[str, Price]) -> list[Cost]:
    """Returns the line items of a model's usage; none for a model without a price."""
    price = prices.get(model)
    if price is None:
        return []
    cached = price.input if price.cached_input is None else price.cached_input
    lines = (
        ("input", price.input, used.tokens.input_tokens - used.tokens.cached_tokens),
        ("cached input", cached, used.tokens.cached_tokens),
        ("output", price.output, used.tokens.output_tokens),
    )
    costs = [
        Cost(line_item=f"{model}, {name}", dollars=each * tokens / TOKENS_PRICED, quantity=tokens)
        for name, each, tokens in lines
        if tokens
    ]
    if price.image and used.units:
        dollars = price.image * used.units
        costs.append(
            Cost(line_item=f"{model}, images", dollars=dollars, quantity=used.units, unit="images")
        )
    return costs


def cost_cents(used: UsageSum, model: str, prices: Mapping[str, Price]) -> float:
    """Returns the sum of all line items in cents."""
    return 100 * sum(cost.dollars for cost in costs_of(used, model, prices))
