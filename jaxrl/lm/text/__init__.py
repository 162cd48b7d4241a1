"""Between text and ids: tokenizers and chat templates."""
