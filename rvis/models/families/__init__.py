"""The reference architectures, a file each."""
