"""Parts that every backbone is made of: torch only, from (B, H, W, C) to (B, H, W, C)."""
