"""jaxrl merge: an adapter and its base to one model."""

from tyro.conf import Positional

from jaxrl.lm.lora import merge as merged
from jaxrl.lm.lora import scale_of
from jaxrl.lm.pretrained.weights import load_adapter, save_model


def merge(
    adapter: Positional[str], folder: Positional[str], *, base: str | None = None, dtype: str = "float32"
) -> None:
    """Merge an adapter into its base, and save the whole model.

    Args:
        adapter: A folder with adapter_config.json, as PEFT or `finetune --adapter-only` writes it, or its hub name.
        folder: Where the model goes: safetensors, config.json and tokenizer.
        base: The model that the adapter is for, where it is not where adapter_config.json says.
        dtype: Of the weights on disk: float32, bfloat16 or float16.
    """
    model, settings, adapters = load_adapter(adapter, base=base)
    params = merged(model.params, adapters, scale_of(settings))
    save_model(folder, model.config, params, model.tokenizer, dtype=dtype)
    print(f"model       {folder}")
