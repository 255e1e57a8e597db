"""What the project exists for: tokens that interact before self-attention (ACP, CAT)."""
