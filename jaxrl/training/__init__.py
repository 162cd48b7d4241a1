"""The pure drivers: jit them, vmap them."""
