"""HMF-MambaINR: fill in the missing MRI contrast. Importing this does nothing: import the file you need."""

__version__ = "0.1.0"
