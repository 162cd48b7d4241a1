"""Weights in and out: GGUF and safetensors, configs, and assets that come as packages."""
