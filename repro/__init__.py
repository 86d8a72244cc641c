"""A single-GPU kit that reproduces "(Mis)generalization of Helpful-only Fine-tuning" (arXiv 2606.04413)."""

__version__ = "0.1.0"
