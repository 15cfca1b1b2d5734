"""The air-gapped installation: what ./scripts/bundle puts into its archive, and how."""
