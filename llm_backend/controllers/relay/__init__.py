"""Operations that an upstream answers: routed, relayed byte for byte, observed."""
