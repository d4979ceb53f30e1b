"""Networks as models: reference architectures, your own, their weights and their layers."""
