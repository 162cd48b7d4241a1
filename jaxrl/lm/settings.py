"""The settings of a language model that every algorithm for them shares."""

from jaxrl.settings import check_unread, config, leaf, static


@config
class LMConfig:
    """Which language model, what of it is trained, and how it is computed."""

    name: str = static("smollm2-135m")
    """An asset's name, a folder of safetensors or of an adapter, a .gguf file, or "organisation/model" of the Hugging
    Face hub. An adapter is merged into its base, unless lora_continue is set."""
    grow_vocabulary: bool = static(False)
    """Add rows to the embedding for ids of the tokenizer that the model has none for, each the mean of the others."""
    dtype: str = static("float32", choices=("float32", "bfloat16", "float64"))
    """Of activations and matrix products. Parameters, softmax and log-probabilities are at least float32."""
    remat: bool | None = static(None)
    """Recompute each layer in the backward pass: less memory, a third more arithmetic. None: on CPU, where that costs
    hardly any time."""
    logit_chunk: int | None = static(128, at_least=1)
    """Tokens whose logits exist at the same time; None forms them all."""
    lora_rank: int = static(0, at_least=0)
    """Rank of low-rank adapters, which alone are then trained; 0 trains every parameter."""
    lora_alpha: float = leaf(16.0, 1e-6)
    """Adapters are scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = static(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
    """The projections that have adapters."""
    lora_rank_stabilized: bool = static(False)
    """rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): scale by lora_alpha / √lora_rank, so that a higher rank does not
    learn the slower."""
    lora_continue: bool = static(False)
    """Go on training the adapter in the folder `name`: rank, alpha, targets and scaling are its own. The reference of
    preference learning is then what was given: the base with this adapter, as it was."""

    defines_task = ("name",)  # with its tokenizer: losses are per token

    def validate(self) -> None:
        """Raises InputError for settings of adapters where there are none."""
        if not self.lora_rank:
            unread = ("lora_alpha", "lora_targets", "lora_rank_stabilized")
            check_unread(self, unread, "with lora_rank = 0", "set lora_rank to at least 1")
