"""Operations answered by upstreams: routed, relayed byte for byte, observed."""
