"""The MONAI bundle that goes with this package: where it lies, and how it is packed. No torch, no MONAI."""
