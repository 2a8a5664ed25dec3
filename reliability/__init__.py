"""Attacks on LoRA Lab that anyone can run (docs/reliability.md)."""
