"""The llama architecture in PyTorch: RMSNorm, SwiGLU, rotary pairs (2i, 2i+1) as in llama.cpp."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to this many tokens written-out attention trains faster on a CPU than the fused kernel.
WRITTEN_OUT = 160


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of the network; every width is a multiple of 32 for Q8_0."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 6
    hidden: int = 512
    context: int = 2048
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.v = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, -1, self.shape.head_width).transpose(1, 2)
            for part in together(x, self.q, self.k, self.v)
        )
        mixed = attend(rotate(q, rotation), rotate(k, rotation), v)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.hidden_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation)
        gate, up = together(self.hidden_norm(x), self.gate, self.up)
        return x + self.down(functional.silu(gate) * up)


class Network(nn.Module):
    """Tokens (batch, length) in, hidden states out; `logits` are a product with the embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(
                    weight, std=0.02 / (2 * shape.layers) ** 0.5 if is_residual else 0.02
                )

    def forward(self, tokens: Tensor) -> Tensor:
        rotation = rotations(self.shape, tokens.shape[1])
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, rotation)
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.embedding.weight)

    @property
    def parameter_count(self) -> int:
        return sum(weight.numel() for weight in self.parameters())


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; for short texts written out, as its gradient is then far cheaper."""
    length = q.shape[-2]
    if length > WRITTEN_OUT or q.shape != k.shape:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    future = torch.full((length, length), -torch.inf).triu(1)
    scores = (q @ k.mT).float() / q.shape[-1] ** 0.5 + future
    return scores.softmax(-1).to(v.dtype) @ v


def together(x: Tensor, *parts: nn.Linear) -> tuple[Tensor, ...]:
    """The parts' products as one, which a CPU computes faster than several narrow ones."""
    product = functional.linear(x, torch.cat([part.weight for part in parts]))
    return product.split([part.out_features for part in parts], dim=-1)


def rotations(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position and pair: (length, head_width / 2) each."""
    pair = torch.arange(0, shape.head_width, 2, dtype=torch.float32)
    angles = torch.outer(torch.arange(length), shape.rope_base ** (-pair / shape.head_width))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
